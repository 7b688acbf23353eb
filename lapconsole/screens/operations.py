"""What a person can do to sessions and agents: ask first, do it in the background, say how it went."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from lapconsole.client import fixes
from lapconsole.client.errors import ClientError, PlatformError, Unreachable
from lapconsole.client.models import Agent, Session
from lapconsole.screens.confirm import Confirm
from lapconsole.widgets.status_line import environment
from lapconsole.widgets.words import plural

if TYPE_CHECKING:
    from lapconsole.app import LapConsole
    from lapconsole.client.platform import Platform


def next_step(error: ClientError) -> str:
    """What to press or do after a call has failed."""
    if isinstance(error, Unreachable):
        return "The console reconnects by itself; try again when the top line says live."
    if isinstance(error, PlatformError):
        if error.key_refused:
            return "The platform wants another key: quit, and start with the right one."
        if error.status == 404:
            return "It may be gone already; the list shows what there is."
        if error.status == 409:
            return "Wait until it has settled, then try again."
        if error.status >= 500:
            return "The session's page and log say more; mend the cause first."
    return "Change what it says, then try again."


class Operations:
    """The operations of a console. Each returns at once; results come as toasts, failures also go to the error list."""

    def __init__(self, console: LapConsole) -> None:
        self._console = console

    def attach(self, session: Session | None, *, take_over: bool = False, own: bool = False) -> None:
        """Open the session's terminal, or its conversation where it has none; see AttachScreen for who drives."""
        if session is None:
            self._console.notify("Nothing is selected.", severity="warning")
        elif session.supports_tui is False:
            self._console.open_chat(session.id)
        elif session.status == "creating":
            self._say(f"Not ready yet: {session.phase or 'coming up'}. Attach when it says ready.")
        elif session.status != "ready":
            self._say(f"It is {session.status}; press r to restart it, then attach.")
        else:
            self._console.open_terminal(session.id, take_over=take_over, own=own)

    def wall(self, ids: Iterable[str]) -> None:
        """Show the terminals of these sessions side by side: those that are ready, as many as there is room for.

        `ids` is read again whenever sessions change.
        """
        from lapconsole.screens.wall import WallScreen

        known = self._console.model.sessions

        def ready() -> list[Session]:
            sessions = filter(None, map(known.get, ids))
            return [one for one in sessions if one.status == "ready" and one.supports_tui is not False]

        if ready():
            self._console.push_screen(WallScreen(ready))
        else:
            self._say("No session in the list is ready and has a terminal.")

    def restart(self, session: Session | None) -> None:
        """Give the session a new sandbox, after asking."""
        if session is None:
            return
        if session.status == "creating":
            self._say("It is still coming up; wait until it has settled, or stop it with x.")
            return
        name = _name(session)
        effects = (
            "Its sandbox is thrown away, with all that is not pushed, and a new one comes up.",
            "Variables given for this session alone are lost: they are never stored.",
        )
        self._ask(
            f"Restart {name}?", effects, "", f"Restart {name}", lambda platform: platform.restart_session(session.id)
        )

    def recreate(self, session: Session | None) -> None:
        """Give the session a new sandbox, also one that hangs while it comes up, after asking."""
        if session is not None:
            name, effects = _name(session), fixes.effects_of(fixes.RECREATE, session)
            self._ask(
                f"Recreate {name}?",
                effects,
                "",
                f"Recreate {name}",
                lambda platform: fixes.recreate(platform, session),
            )

    def mend(self, session: Session | None, then: Callable[[], None] = lambda: None) -> None:
        """Put back what is missing around the session's sandbox, such as its Service, after asking.

        `then` is called when that was done, here and below.
        """
        if session is None:
            return
        if session.ended:
            self._say(f"It is {session.status} and has no sandbox to mend; recreate it.")
            return
        name = _name(session)
        effects = fixes.effects_of(fixes.SERVICE, session)

        async def call(platform: Platform) -> None:
            if did := await platform.mend_session(session.id):
                self._console.notify(did, timeout=8, markup=False)
            then()

        refused = "If it stays unwell, recreate the session."
        self._ask(f"Recreate the Service of {name}?", effects, "", f"Mend {name}", call, refused)

    def top_up_pool(self, session: Session, then: Callable[[], None] = lambda: None) -> None:
        """Fill the warm pool, which was found empty for this session's agent, after asking."""

        async def call(platform: Platform) -> None:
            begun = await platform.top_up_pool()
            self._console.notify(f"{begun} sandbox{'es' * (begun != 1)} begun." if begun else "Nothing to add.")
            then()

        effects = fixes.effects_of(fixes.POOL, session)
        self._ask("Fill the warm pool now?", effects, "", "Fill the warm pool", call, refused="")

    def stop(self, session: Session | None) -> None:
        """End the session, after asking."""
        if session is None:
            return
        if session.ended:
            self._say(f"It is {session.status} already; r restarts it, D deletes it.")
            return
        name = _name(session)
        effects = (
            "The agent is ended and its sandbox removed, with all that is not pushed.",
            "The row stays, as dead; r brings it back.",
        )
        self._ask(f"Stop {name}?", effects, "", f"Stop {name}", lambda platform: platform.stop_session(session.id))

    def delete(self, session: Session | None) -> None:
        """Delete the session, after asking."""
        if session is None:
            return
        name = _name(session)
        effects = (
            "The agent is ended and its sandbox removed, with all that is not pushed."
            if session.active
            else "Whatever is left of its sandbox is removed.",
        )
        typed = (session.agent_name or session.id[:8]) if session.active and self._production else ""
        self._ask(
            f"Delete {name}?", effects, typed, f"Delete {name}", lambda platform: platform.delete_session(session.id)
        )

    def delete_agent(self, agent: Agent | None) -> None:
        """Delete an agent with all its sessions, after asking; its name is to be typed while any of them is alive."""
        if agent is None:
            return
        counts = self._console.model.agent_counts(agent.id)
        alive = counts.get("ready", 0) + counts.get("creating", 0)
        effects = ["The agent is deleted for good, with what it remembers. Skills stay in the library."]
        if alive:
            effects.append(f"{plural(alive, 'running session')} of it will be ended, with all that is not pushed.")
        if rest := sum(counts.values()) - alive:
            effects.append(f"{plural(rest, 'ended session')} of it will be deleted.")
        typed = agent.label if alive or self._production else ""
        self._ask(
            f"Delete agent {agent.label}?",
            effects,
            typed,
            f"Delete {agent.label}",
            lambda platform: platform.delete_agent(agent.id),
        )

    def new_agent(self) -> None:
        """Open the form of a new agent."""
        from lapconsole.screens.new_agent import NewAgentScreen

        self._console.push_screen(NewAgentScreen())

    def edit_agent(self, agent: Agent | None) -> None:
        """Open the form that changes an agent."""
        from lapconsole.screens.edit_agent import EditAgentScreen

        if agent is not None:
            self._console.push_screen(EditAgentScreen(agent))

    def new_session(self, agent_id: str | None) -> None:
        """Open the form of a new session; without agents, say how to get one."""
        from lapconsole.screens.new_session import NewSessionScreen

        if not self._console.model.agents:
            keys = self._console.keymap
            self._say(f"No agents yet: press {keys.first('app.agents')}, then {keys.first('agents.new')}, to make one.")
        else:
            self._console.push_screen(NewSessionScreen(agent_id))

    # -- how

    @property
    def _production(self) -> bool:
        return environment(self._console.label) == "production"

    def _say(self, words: str) -> None:
        self._console.notify(words, severity="warning")

    def _ask(
        self,
        title: str,
        effects: tuple[str, ...] | list[str],
        typed: str,
        what: str,
        call: Callable[[Platform], Awaitable[object]],
        refused: str | None = None,
    ) -> None:
        def answered(yes: bool | None) -> None:
            if yes:
                self.perform(what, call, refused)

        self._console.push_screen(Confirm(title, effects, place=self._console.label, typed=typed), answered)

    def perform(self, what: str, call: Callable[[Platform], Awaitable[object]], refused: str | None = None) -> None:
        """Do it in the background, and say how it went. `refused` is the advice where the state of things forbids."""
        self._console.run_worker(self._perform(what, call, refused), group="operations", exit_on_error=False)

    async def _perform(self, what: str, call: Callable[[Platform], Awaitable[object]], refused: str | None) -> None:
        console = self._console
        if console.platform is None:
            console.report(what, "there is no connection yet", "Try again when the top line says live.")
            return
        console.notify(f"{what} …", timeout=2)
        try:
            await call(console.platform)
        except ClientError as error:
            conflict = isinstance(error, PlatformError) and error.status == 409
            console.report(what, str(error), refused if conflict and refused is not None else next_step(error))
        else:
            console.notify(f"{what}: done.", timeout=3)


def _name(session: Session) -> str:
    """What to call a session in a question: its agent and title."""
    name = session.agent_name or session.id[:8]
    return f"{name} ({session.title or session.id[:8]})" if session.agent_name else name
