"""Long work as data: jobs, the process that runs them, and how to talk to it."""
