"""How many operations: what each operation costs on paper, and a counter that looks at what runs."""
