"""Reading a configuration of the field: from its text to a policy, or to why it is none.

Pure: text, environment and file name come in as arguments.
"""
