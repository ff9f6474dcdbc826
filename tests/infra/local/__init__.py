"""Tests of the local stack that need no broker and no server."""
