"""Tests of the estimators, against properties, known worlds and independent libraries."""
