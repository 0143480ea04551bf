"""Workspaces of nirs4all in and out: `migrate` in place, `convert` from folder to folder."""

from n4a_fast.integrations.workspaces.conversion import convert
from n4a_fast.integrations.workspaces.migration import migrate
from n4a_fast.integrations.workspaces.reports import Progress, Report, TableReport

__all__ = ["Progress", "Report", "TableReport", "convert", "migrate"]
