"""What a session says and writes down of its steps: at the terminal, in its log, in its record, for TensorBoard."""
