"""An example of an evaluation: a policy that draws, one that may replace it, and invented ratings."""
