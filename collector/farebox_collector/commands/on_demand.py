"""Import commands on demand, so that `farebox audit` does not load the imports of `farebox report`."""

from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from farebox_collector.ledger.access.actors import acting_as, command_line

_PLACES = {
    "prices": "prices:app",
    "wallets": "wallets:app",
    "holds": "holds:app",
    "packs": "packs:app",
    "reconcile": "reconcile:app",
    "rules": "rules:app",
    "budgets": "budgets:app",
    "policies": "policies:app",
    "agent-plans": "agent_plans:app",
    "incidents": "incidents:app",
    "deadletters": "deadletters:app",
    "audit-log": "audit_log:audit_log_command",
    "secrets": "stored_secrets:app",
    "privacy": "privacy:app",
    "people": "people:app",
    "approvals": "approvals:app",
    "keys": "keys:app",
    "tenants": "tenants:app",
    "webhooks": "webhooks:app",
    "receipt": "receipts:receipt_command",
    "costs": "costs:costs_command",
    "stakes": "stakes:stakes_command",
    "report": "report:report_command",
    "replay": "replays:replay_command",
    "maintain": "maintain:maintain_command",
    "stripe-double": "stripe_double:stripe_double",
    "charges": "charges:charges",
    "check-recordings": "check_recordings:check_recordings",
}
"""Each command or group with its module and attribute."""


class OnDemand(TyperGroup):
    """The group of all commands: registered ones and those of the table."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Commands(self.commands)

    def invoke(self, ctx: Any) -> Any:
        """Run a command as the operating system's user, whom the audit log names."""
        with acting_as(command_line()):
            return super().invoke(ctx)


class _Commands(MutableMapping[str, Any]):
    """Commands by name; those of the table are imported at first use."""

    def __init__(self, present: Mapping[str, Any]) -> None:
        self._present = dict(present)

    def __getitem__(self, name: str) -> Any:
        if name not in self._present:
            self._present[name] = _imported(name, _PLACES[name])
        return self._present[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._present[name] = command

    def __delitem__(self, name: str) -> None:
        del self._present[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self._present, *_PLACES)))

    def __len__(self) -> int:
        return len({*self._present, *_PLACES})


def _imported(name: str, place: str) -> Any:
    module, _, what = place.partition(":")
    found = getattr(import_module(f"farebox_collector.commands.{module}"), what)
    parent = typer.Typer(rich_markup_mode=None)
    if isinstance(found, typer.Typer):
        parent.add_typer(found, name=name)
    else:
        parent.command(name)(found)
    return typer.main.get_group(parent).commands[name]
