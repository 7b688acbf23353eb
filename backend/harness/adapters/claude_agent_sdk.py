"""claude-agent-sdk: only with a command of the user's own, until this platform brings a server for it."""

from collections.abc import Sequence

from backend.harness.adapters import Context, Launch, SetupError, command_variable
from backend.harness.adapters.claude_code import environment


def launch(context: Context, command: Sequence[str] | None) -> Launch:
    """The user's command with the environment that the SDK reads."""
    if command is None:
        raise SetupError(
            "the harness claude-agent-sdk has no built-in server in this version. Set "
            f"{command_variable('claude-agent-sdk')} to a program that serves HTTP on $PORT."
        )
    return Launch(command, environment(context))
