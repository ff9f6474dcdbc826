"""Reading configurations of the field."""
