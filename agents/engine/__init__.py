"""What a policy decides: one tree, compiled into a scalar and a columnar evaluator that agree bit by bit."""
