"""What the process of batches does with them: reads lines, makes jobs, writes files. Knows no HTTP."""
