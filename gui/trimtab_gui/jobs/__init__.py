"""Talks to the worker process that does the heavy work."""

from trimtab_gui.jobs.controller import Job, JobController

__all__ = ["Job", "JobController"]
