"""Tests of the dialects that providers speak."""
