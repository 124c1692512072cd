"""What the verbs of the command line do, without parsing or printing."""
