"""What people look at to see how a run goes: records of rollouts with their frames, loggers, a page, a diagnosis. Imports no command."""
