"""What an operation waits for, and what fixing it would bring."""
