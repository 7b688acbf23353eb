"""Which requests are to be refused, delayed or broken off."""

from dataclasses import dataclass

from tests.kubernetes.double.errors import Refused


@dataclass
class Rule:
    """Holds for requests of `verb` on `resource` in `namespace` (None: any), `left` times (None: until taken away)."""

    verb: str | None = None
    resource: str | None = None
    namespace: str | None = None
    left: int | None = None
    forbid: bool = False
    refusal: Refused | None = None
    delay: float = 0.0
    broken: bool = False


class Rules:
    """The rules in force; the first that fits a request counts."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []

    def match(self, *asked: str) -> Rule | None:
        """For verb, resource and namespace."""
        for rule in self.rules:
            wanted = (rule.verb, rule.resource, rule.namespace)
            if rule.left != 0 and all(want in (None, has) for want, has in zip(wanted, asked, strict=True)):
                if rule.left is not None:
                    rule.left -= 1
                return rule
        return None
