"""Host rules: every way of writing a host comes to the same verdict."""

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain import egress, hosts
from backend.domain.egress import BadHost, Policy, normal, rules, special, split

LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
NAME = (
    st.lists(LABEL, min_size=1, max_size=4).map(".".join).filter(lambda name: not name.rpartition(".")[2][0].isdigit())
)


@pytest.mark.parametrize(
    ("written", "host"),
    [
        ("Example.COM", "example.com"),
        ("example.com.", "example.com"),
        ("[::1]", "::1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("0x7F.1", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("0", "0.0.0.0"),
        ("0x", "0.0.0.0"),
        ("0xa9fea9fe", "169.254.169.254"),
        ("１２７.0.0.1", "127.0.0.1"),
        ("①②⑦.⓪.⓪.①", "127.0.0.1"),
        ("example。com", "example.com"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("ｅｘａｍｐｌｅ.com", "example.com"),
        ("my_host.internal", "my_host.internal"),
    ],
)
def test_one_form_of_each_host(written: str, host: str) -> None:
    assert normal(written) == host
    assert normal(host) == host


NO_HOSTS = (
    *("", ".", "a..b", "-a.com", "a b", "a\0b", "a%2eb", "256.256.256.256", "1.2.3.4.5", "999999999999", "1.2.3.08"),
    *("[::1", "::1%lo", "fe80::1%eth0", "a/b", "a@b", "a" * 64 + ".com", "ä" * 200, "host:80", "☃\u202e"),
)


@pytest.mark.parametrize("written", NO_HOSTS)
def test_no_hosts(written: str) -> None:
    with pytest.raises(BadHost):
        normal(written)


@given(NAME)
def test_case_and_dot_make_no_difference(name: str) -> None:
    assert normal(name.upper() + ".") == normal(name) == name


@given(st.ip_addresses(v=4), st.sampled_from(["{}.{}.{}.{}", "0x{:x}.{}.0{:o}.{}", "{}.{}.{}.0x{:X}"]))
def test_all_forms_of_an_address_are_one(ip: ipaddress.IPv4Address, form: str) -> None:
    assert normal(form.format(*ip.packed)) == str(ip)
    assert normal(str(int(ip))) == normal(hex(int(ip))) == str(ip)
    assert normal(f"[::ffff:{ip}]") == str(ip)
    assert special(ipaddress.IPv6Address(f"64:ff9b::{ip}")) == special(ip) or special(ip) is None


@given(st.text(max_size=40))
def test_anything_is_a_host_or_none(text: str) -> None:
    try:
        host = normal(text)
    except BadHost:
        return
    assert normal(host) == host
    assert host == host.lower() and not host.endswith(".")


@pytest.mark.parametrize(
    ("ip", "what"),
    [
        ("127.0.0.1", "loopback"),
        ("127.255.1.2", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("64:ff9b::7f00:1", "loopback"),
        ("2002:7f00:1::", "loopback"),
        ("169.254.1.1", "link-local"),
        ("fe80::1", "link-local"),
        ("169.254.169.254", "metadata"),
        ("fd00:ec2::254", "metadata"),
        ("100.100.100.200", "metadata"),
        ("0.0.0.0", "no address"),
        ("0.1.2.3", "no address"),
        ("::", "no address"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("255.255.255.255", "reserved"),
    ],
)
def test_addresses_that_are_never_reachable(ip: str, what: str) -> None:
    assert what in (special(ipaddress.ip_address(ip)) or "")
    verdict = Policy(allow=rules(["0.0.0.0/0", "::/0"])).of_name(normal(ip), 80)
    assert not verdict.allowed
    assert verdict.rule.startswith("always refused")


@pytest.mark.parametrize("ip", ["10.0.0.1", "192.168.1.1", "8.8.8.8", "2606:4700::1111", "fd12::1"])
def test_ordinary_addresses(ip: str) -> None:
    assert special(ipaddress.ip_address(ip)) is None
    assert Policy().of_name(ip, 80).allowed


def test_lists() -> None:
    policy = Policy(allow=rules(["*.example.com", "one.test:8443", "10.0.0.0/8"]), deny=rules(["bad.example.com"]))
    allowed = {
        ("example.com", 443): True,
        ("a.b.example.com", 80): True,
        ("bad.example.com", 443): False,
        ("x.bad.example.com", 443): True,
        ("badexample.com", 443): False,
        ("one.test", 8443): True,
        ("one.test", 443): False,
        ("10.1.2.3", 22): True,
        ("11.1.2.3", 22): False,
    }
    assert {target: policy.of_name(*target).allowed for target in allowed} == allowed
    assert policy.of_name("bad.example.com", 443).rule == "deny_out: bad.example.com"
    assert policy.of_name("other.test", 1).rule == "allow_out: no entry matches"
    assert Policy(deny=rules(["*.evil.test"])).of_name("evil.test", 443).allowed is False
    assert Policy().of_name("any.test", 443).allowed
    assert policy.names_port("one.test", 8443) and not policy.names_port("example.com", 22)


def test_every_address_of_a_name_counts() -> None:
    good, bad = ipaddress.ip_address("93.184.216.34"), ipaddress.ip_address("127.0.0.1")
    assert Policy().of_addresses("a.test", 80, [good]).allowed
    verdict = Policy().of_addresses("a.test", 80, [good, bad])
    assert (verdict.allowed, verdict.rule) == (False, "always refused: a loopback address")
    denied = Policy(deny=rules(["93.184.0.0/16"])).of_addresses("a.test", 80, [good])
    assert not denied.allowed and "93.184.0.0/16" in denied.rule


@pytest.mark.parametrize(
    "ip", ["10.96.0.1", "192.168.1.1", "100.64.0.1", "fd00::1", "::ffff:10.0.0.1", "64:ff9b::a00:1"]
)
def test_private_addresses_only_where_they_are_named(ip: str) -> None:
    private, public = ipaddress.ip_address(ip), ipaddress.ip_address("93.184.215.14")

    def allowed(**lists: Any) -> bool:
        allow = rules(lists.pop("allow", []))
        policy = Policy(allow=allow, public=True, **lists)
        assert policy.of_addresses("git.test", 443, [public]).allowed
        return policy.of_addresses("git.test", 443, [public, private]).allowed

    assert Policy().of_addresses("git.test", 443, [private]).allowed
    assert not allowed() and not allowed(allow=["*.test"]) and not allowed(allow=["other.test", "git.test:80"])
    assert allowed(allow=["git.test"]) and allowed(allow=["0.0.0.0/0", "::/0"])
    assert allowed(reachable={("git.test", 443)}) and allowed(granted=[("git.test", 443, "repo_url")])
    assert allowed(gateways={("git.test", 443)})


def test_exact_exceptions() -> None:
    policy = Policy(
        allow=rules(["x.test"]), reachable={("127.0.0.1", 4000)}, gateways={("localhost", 4001)},
        granted=[("git.test", 443, "repo_url")], deny=rules(["git.test:22"]),
    )  # fmt: skip
    assert not policy.of_name("127.0.0.1", 4000).allowed  # reachable, but not on the list
    assert Policy(reachable={("127.0.0.1", 4000)}).of_name("127.0.0.1", 4000).allowed
    assert not Policy(reachable={("127.0.0.1", 4000)}).of_name("127.0.0.1", 4001).allowed
    assert policy.of_name("localhost", 4001).allowed
    assert policy.of_addresses("localhost", 4001, [ipaddress.ip_address("127.0.0.1")]).allowed
    assert not policy.of_name("localhost", 4000).allowed
    assert policy.of_name("git.test", 443).rule == "repo_url"
    assert not policy.of_name("git.test", 22).allowed
    assert not Policy().of_name("a.localhost", 80).allowed
    assert not Policy().of_name("metadata.google.internal", 80).allowed


@given(st.lists(NAME, max_size=4), st.lists(NAME, max_size=4), NAME)
def test_deny_wins_and_a_list_is_a_list(allow: list[str], deny: list[str], name: str) -> None:
    verdict = Policy(allow=rules(allow), deny=rules(deny)).of_name(normal(name), 443)
    if name in deny or name.endswith("localhost") or name == "metadata" or (allow and name not in allow):
        assert not verdict.allowed


@pytest.mark.parametrize(
    ("entry", "allow", "covers"),
    [
        ("api.linear.app", ["api.linear.app"], True),
        ("api.linear.app", [], True),
        ("API.linear.app", ["*.linear.app"], True),
        ("*.linear.app", ["api.linear.app"], False),
        ("*.a.linear.app", ["*.linear.app"], True),
        ("a.test:443", ["a.test"], True),
        ("a.test", ["a.test:443"], False),
        ("10.1.0.0/16", ["10.0.0.0/8"], True),
        ("10.0.0.0/8", ["10.1.0.0/16"], False),
        ("evil.test", ["a.test"], False),
    ],
)
def test_what_a_list_covers(entry: str, allow: list[str], covers: bool) -> None:
    assert egress.covered(entry, allow) is covers


def test_targets() -> None:
    assert split("A.test:80") == ("a.test", 80)
    assert split("[::1]:80") == ("::1", 80)
    assert split("a.test", 443) == ("a.test", 443)
    for text in ("a.test", "a.test:0", "a.test:65536", "u@a.test:80", "a.test:80:90", "::1:80", "a.test:x", "a b:80"):
        with pytest.raises(BadHost):
            split(text)


@pytest.mark.parametrize(
    "entry", ["a.test", "*.a.test", "a.test:443", "1.2.3.4", "10.0.0.0/8", "[::1]:80", "fd00::/8", "::1"]
)
def test_entries(entry: str) -> None:
    assert hosts.problem(entry) is None
    egress.Rule.parse(entry)


@pytest.mark.parametrize(
    "entry", ["", "a b", "https://a.test", "a.test/x", "a.test:0", "a.test:99999", "*", "a:b", "[a]:80"]
)
def test_no_entries(entry: str) -> None:
    assert hosts.problem(entry)
