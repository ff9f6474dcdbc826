"""Simulated LLM providers behind the OpenAI dialect, for demos, tests and load runs.

A leaf: imports nothing else of this repository. ``model`` and ``profile`` are pure,
``simulator`` holds the state between calls, ``server`` and ``in_process`` are the two ways in.
"""
