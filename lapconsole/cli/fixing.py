"""`lap fix`: does what mends a finding, after saying what that is and asking."""

from __future__ import annotations

import argparse
import json

from lapconsole.cli import bringup, prompts
from lapconsole.cli.account import Account
from lapconsole.cli.report import Failure, complain, run_loop, say
from lapconsole.cli.sessions import FOUND, session_of
from lapconsole.client import fixes
from lapconsole.client.errors import ClientError
from lapconsole.client.models import Session
from lapconsole.client.platform import Platform


def fix(current: Account, given: argparse.Namespace) -> int:
    """Carry out the command and return its exit code. Asked is between event loops, where that may block."""
    session, what, found = run_loop(_planned(current, given.session, given.what))
    if what is None:
        if given.as_json:
            say(json.dumps({"id": session.id, "fix": None, "did": None}))
        else:
            say("nothing that was found can be mended from here" if found else "nothing is wrong, nothing to mend")
        return FOUND if found else 0
    complain(f"{what}, session {session.id[:8]} of {session.agent_name or session.agent_id[:8]}:")
    for effect in fixes.effects_of(what, session):
        complain(f"  {effect}")
    if not given.yes:
        prompts.need_terminal("the question", "say --yes to go on without it")
        if prompts.ask("Go on? [y/N]").lower() not in ("y", "yes"):
            complain("nothing was done")
            return 1
    now, did = run_loop(_done(current, session, what))
    if given.as_json:
        say(json.dumps({"id": now.id, "fix": what, "did": did}))
    else:
        say(f"✓ {did}")
    return 0


async def _planned(current: Account, wanted: str, what: str | None) -> tuple[Session, str | None, bool]:
    """The session, what to do, and whether anything was found wrong where that had to be looked for."""
    async with Platform(current.base, current.key) as platform:
        try:
            session = await session_of(platform, current, wanted)
            if what is not None:
                return session, what, True
            findings = (await platform.diagnose(session.id)).findings
        except ClientError as error:
            raise Failure(f"fix failed: {bringup.cause(error)}") from None
    return session, fixes.first_fix(findings), bool(findings)


async def _done(current: Account, session: Session, what: str) -> tuple[Session, str]:
    """Do it; the session it is then, and what was done."""
    async with Platform(current.base, current.key) as platform:
        try:
            if what == fixes.SERVICE:
                return session, await platform.mend_session(session.id) or "what was missing was put back"
            if what == fixes.POOL:
                begun = await platform.top_up_pool()
                return session, f"{begun} warm sandbox{'es' * (begun != 1)} begun"
            now = await fixes.recreate(platform, session)
            return now, f"recreated session {now.id}: it is {now.status}"
        except ClientError as error:
            raise Failure(f"fix failed: {bringup.cause(error)}") from None
