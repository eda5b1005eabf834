"""The configuration, variable by variable: contract.md section 2."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core.keys.static_key import StaticKey
from app.core.model import Backend, RedisAddress
from app.core.process.settings import AdminSettings, DatabaseSettings, GatewaySettings, SettingsError, load, variables

ROOT = Path(__file__).resolve().parents[2]
ENOUGH = {"BACKEND_URLS": "api=http://localhost:3000", "VALID_API_KEYS": "sk_test_abc123:org_1:premium"}
ADMIN_TOKENS = f"ops:owner:{'a' * 32}, reader:viewer:{'b' * 40}"
NAMES = {name for kind in (GatewaySettings, AdminSettings) for names in variables(kind).values() for name in names}

Read = Callable[..., GatewaySettings]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Read:
    """Loads the gateway's settings from ENOUGH and the variables given, with nothing else around."""
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)

    def with_variables(**given: str) -> GatewaySettings:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (ENOUGH | given).items():
                patch.setenv(name, value)
            return load(GatewaySettings)

    return with_variables


@pytest.fixture
def problems(read: Read) -> Callable[..., tuple[str, ...]]:
    """What `read` refuses."""

    def of(**given: str) -> tuple[str, ...]:
        with pytest.raises(SettingsError) as refused:
            read(**given)
        return refused.value.problems

    return of


Problems = Callable[..., tuple[str, ...]]


def test_defaults(read: Read) -> None:
    """With only what is required set, every other setting has the default that the contract's table names."""
    found = read()
    assert found.port == 8080
    assert found.workers == len(os.sched_getaffinity(0))
    assert (found.log_level, found.log_format) == ("info", "json")
    assert (found.backend_connect_seconds, found.backend_idle_seconds) == (2, 30)
    assert found.key_ttl_seconds == 900
    assert found.request_bytes_max == 104_857_600
    assert (found.connections_max, found.connections_per_address_max) == (10_000, 5_000)
    assert found.rate_limit_fallback == "local"
    assert found.rate_limit_ietf_headers
    assert found.shutdown_seconds == 30
    assert found.shutdown_delay_seconds == 2
    assert found.database_url is None
    assert found.redis is None
    assert not found.trusted_proxies.trusts("127.0.0.1")


def test_platform_port_wins(read: Read) -> None:
    """PORT, which a platform sets, wins over GATEWAY_PORT."""
    assert read(GATEWAY_PORT="9001").port == 9001
    assert read(GATEWAY_PORT="9001", PORT="9002").port == 9002


def test_admin_port(monkeypatch: pytest.MonkeyPatch, read: Read) -> None:
    """The admin app takes ADMIN_PORT, then PORT, then 8081, and listens on loopback by default."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://localhost/gateway")
    monkeypatch.setenv("ADMIN_TOKENS", ADMIN_TOKENS)
    assert (load(AdminSettings).admin_port, load(AdminSettings).admin_host) == (8081, "127.0.0.1")
    monkeypatch.setenv("PORT", "5100")
    assert load(AdminSettings).admin_port == 5100
    monkeypatch.setenv("ADMIN_PORT", "9003")
    assert load(AdminSettings).admin_port == 9003


def test_admin_tokens(monkeypatch: pytest.MonkeyPatch, read: Read) -> None:
    """Each admin token is known by its digest, with its name and role, and a role includes those below it."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://localhost/gateway")
    monkeypatch.setenv("ADMIN_TOKENS", ADMIN_TOKENS)
    owner, viewer = load(AdminSettings).admin_tokens
    assert [(each.name, each.role) for each in (owner, viewer)] == [("ops", "owner"), ("reader", "viewer")]
    assert owner.may("editor")
    assert not viewer.may("editor")
    assert "aaaa" not in repr(load(AdminSettings))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not set"),
        ("ops", "entry 1 has an unknown role"),
        (f"ops:owner:{'hushit' * 5}", "fewer than 32 characters"),
        (f"ops:root:{'hushit' * 6}", "unknown role"),
        (f"ops:owner:{'hushit' * 6} x", "other characters"),
        (f":owner:{'hushit' * 6}", "no usable name"),
        (f"cli:owner:{'hushit' * 6}", "no usable name"),
        (f"a:owner:{'hushit' * 6},a:viewer:{'hushat' * 6}", "a name twice"),
        (f"a:owner:{'hushit' * 6},b:viewer:{'hushit' * 6}", "a token twice"),
    ],
)
def test_admin_tokens_that_will_not_do(monkeypatch: pytest.MonkeyPatch, read: Read, text: str, words: str) -> None:
    """A mistake in ADMIN_TOKENS is told with the way to make a token, and never repeats one."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://localhost/gateway")
    monkeypatch.setenv("ADMIN_TOKENS", text)
    with pytest.raises(SettingsError) as refused:
        load(AdminSettings)
    (problem,) = refused.value.problems
    assert problem.startswith("ADMIN_TOKENS: ")
    assert words in problem
    assert 'python -c "import secrets; print(secrets.token_urlsafe(32))"' in problem
    assert "hush" not in problem


def test_the_admin_app_needs_a_database(read: Read) -> None:
    """Without DATABASE_URL and ADMIN_TOKENS the admin app says what it lacks: both, at once."""
    with pytest.raises(SettingsError) as refused:
        load(AdminSettings)
    assert [problem.partition(":")[0] for problem in refused.value.problems] == ["DATABASE_URL", "ADMIN_TOKENS"]


def test_every_mistake_at_once(problems: Problems) -> None:
    """All mistakes are told together, each under the name that was set, in the form NAME: what, expected what."""
    told = problems(
        GATEWAY_PORT="80a",
        LOG_LEVEL="loud",
        BACKEND_URLS="api=ftp://x",
        REDIS_URL="http://x",
        DATABASE_URL="mysql://x",
        VALID_API_KEYS="",
    )
    assert {line.partition(":")[0] for line in told} == {
        *("GATEWAY_PORT", "LOG_LEVEL", "BACKEND_URLS", "REDIS_URL", "DATABASE_URL")
    }
    assert all(", expected " in line or "expected one" in line for line in told)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("PORT", ["0", "65536", "-1", "+80", "8_0", "٨٠", "80.0", "0x50", "x"]),
        ("WEB_CONCURRENCY", ["0", "257", "two"]),
        ("BACKEND_TIMEOUT", ["0", "-1", "nan", "inf", "1e3", "5s", "3601", "1_0"]),
        ("BACKEND_CONNECT_TIMEOUT", ["0", ".5.", "soon"]),
        ("API_KEY_CACHE_TTL", ["0", "15m", "86401"]),
        ("SHUTDOWN_TIMEOUT", ["0", "never"]),
        ("CONNECTIONS_MAX", ["0", "1000001", "many"]),
        ("CONNECTIONS_PER_ADDRESS_MAX", ["0", "-1"]),
        ("SHUTDOWN_DELAY", ["-1", "3601", "soon"]),
        ("REQUEST_MAX_BYTES", ["0", "-5", "1MB", "9" * 19]),
        ("LOG_LEVEL", ["warning", "trace"]),
        ("LOG_FORMAT", ["text"]),
        ("RATE_LIMIT_FALLBACK", ["maybe"]),
        ("RATE_LIMIT_NODES", ["0", "1.5"]),
        ("RATE_LIMIT_IETF_HEADERS", ["2"]),
        ("REDIS_TLS_VERIFY", ["some"]),
        ("REDIS_DB", ["-1", "x"]),
        ("REDIS_ADDR", ["host:port", "host:0", "redis://h:1", "a b:1", "u@h:1", "[::1:6379", ":6379"]),
        ("TRUSTED_PROXIES", ["10.0.0.0/33", "router", "*,10.0.0.1", "10.0.0.1,,10.0.0.2"]),
    ],
)
def test_refused_values(problems: Problems, name: str, values: list[str]) -> None:
    """A value out of its range or form is refused under its name, with what was expected."""
    for value in values:
        (told,) = problems(**{name: value})
        assert told.startswith(f"{name}: "), value
        assert "expected" in told, value


def test_spelling_of_words(read: Read) -> None:
    """Words are read in any case, and white space around a value does not count."""
    found = read(LOG_LEVEL="WARN", LOG_FORMAT=" Console ", RATE_LIMIT_FALLBACK="Closed\n", PORT=" 80 ")
    assert (found.log_level, found.log_format, found.rate_limit_fallback, found.port) == (
        "warn",
        "console",
        "closed",
        80,
    )


def test_backends(read: Read) -> None:
    """Backends keep their order, base path without a trailing slash, and IPv6 addresses."""
    found = read(BACKEND_URLS="b=https://Example.COM/v1/, a=http://[::1]:3000 ,c=http://10.0.0.1:80/a=b")
    assert list(found.backends.values()) == [
        (Backend("b", "https", "example.com", 443, "/v1"),),
        (Backend("a", "http", "::1", 3000),),
        (Backend("c", "http", "10.0.0.1", 80, "/a=b"),),
    ]


def test_several_targets_of_a_service(read: Read) -> None:
    """Targets stand between bars, in order; they may differ in everything, base path and scheme included."""
    found = read(BACKEND_URLS="api=http://a:3000|http://b:3000/v2 | https://a,web=http://c")
    assert found.backends == {
        "api": (
            Backend("api", "http", "a", 3000),
            Backend("api", "http", "b", 3000, "/v2"),
            Backend("api", "https", "a", 443),
        ),
        "web": (Backend("web", "http", "c", 80),),
    }


def test_the_deadline_leaves_room_for_two_timeouts(read: Read) -> None:
    """Without BACKEND_DEADLINE a request has twice BACKEND_TIMEOUT until the head of its answer."""
    assert read().backend_deadline_seconds == 60
    assert read(BACKEND_TIMEOUT="5").backend_deadline_seconds == 10
    assert read(BACKEND_TIMEOUT="5", BACKEND_DEADLINE="7.5").backend_deadline_seconds == 7.5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("BACKEND_HEALTH_PATH", value) for value in ("healthz", "http://x/", "/a b", "/a#b", "/ä")),
        *(("BACKEND_MAX_CONNECTIONS", value) for value in ("0", "-1", "x", "65536")),
        *(("BACKEND_DEADLINE", value) for value in ("0", "-1", "x", "3601")),
    ],
)
def test_refused_ways_to_treat_backends(problems: Problems, name: str, value: str) -> None:
    """What the gateway could not keep to is refused by name."""
    (told,) = problems(**{name: value})
    assert told.startswith(f"{name}: ")


@pytest.mark.parametrize(
    "value",
    [
        *("http://localhost:3000", "api=", "=http://x", "api=http://", "api=//x", "api=x", "a b=http://x"),
        *("api=http://x|http://x/", "api=http://x|", "api=|http://x", "api=http://x||http://y", "api=http://x|x"),
        *("api=http://x,", "api=http://x,api=http://y", "api=ftp://x", "api=http://u:p@x", "api=http://x?q=1"),
        *(
            "api=http://x#f",
            "api=http://x:0",
            "api=http://x:99999",
            "api=http://x:y",
            "api=http://[::1",
            "api=http://a b",
        ),
        *("api=http://x/\t", "api=http://[fe80::1%25eth0]", "api=http://x^y", "ä=http://x", "api=http://ä"),
    ],
)
def test_refused_backends(problems: Problems, value: str) -> None:
    """A backend list with anything wrong in it is refused whole."""
    if value.endswith("\t"):
        value += "x"  # not at the end, where white space is stripped
    (told,) = problems(BACKEND_URLS=value)
    assert told.startswith("BACKEND_URLS: ")


def test_redis_addresses(read: Read) -> None:
    """REDIS_URL in its three forms, REDIS_ADDR with its companions, the URL winning, passwords decoded."""
    assert read(REDIS_URL="redis://h").redis == RedisAddress("h")
    assert read(REDIS_URL="rediss://u:p%40%2Fss@h:7/3").redis == RedisAddress(
        "h", 7, db=3, username="u", password="p@/ss", tls=True
    )
    assert read(REDIS_URL="rediss://:x@h:7", REDIS_TLS_VERIFY="none").redis == RedisAddress(
        "h", 7, password="x", tls=True, verify=False
    )
    assert read(REDIS_URL="unix:///run/redis.sock?db=2").redis == RedisAddress(path="/run/redis.sock", db=2)
    own = read(REDIS_ADDR="h:1", REDIS_PASSWORD="pa:ss@", REDIS_DB="4")
    assert own.redis == RedisAddress("h", 1, db=4, password="pa:ss@")
    assert read(REDIS_ADDR="[::1]:6380").redis == RedisAddress("::1", 6380)
    assert read(REDIS_ADDR="h:1", REDIS_URL="redis://g").redis == RedisAddress("g")


@pytest.mark.parametrize(
    "value",
    [
        *("localhost:6379", "http://h", "redis://", "redis://h:x", "redis://h:0", "redis://h/x", "redis://h/1/2"),
        *("redis://h?timeout=1", "unix://", "redis://:p%zz@h", "redis://h h", "redis://[::1", "unix://h/path"),
    ],
)
def test_refused_redis_urls(problems: Problems, value: str) -> None:
    """A Redis URL with anything wrong in it is refused."""
    (told,) = problems(REDIS_URL=value)
    assert told.startswith("REDIS_URL: ")


@pytest.mark.parametrize(
    "value",
    [
        *("postgresql://u:p@h:5432/d", "postgres://h/d?sslmode=require", "postgresql:///d?host=/tmp", "postgresql://"),
        *("postgresql://%2Ftmp/d", "postgresql://h1:1,h2:2/d?target_session_attrs=any", "postgresql://[::1]:5432/d"),
    ],
)
def test_database_urls(read: Read, value: str) -> None:
    """PostgreSQL's URLs go through unchanged: both schemes, unix sockets, several hosts."""
    assert read(DATABASE_URL=value).database_url == value


@pytest.mark.parametrize(
    "value",
    [
        "mysql://h/d",
        "host=h dbname=d",
        "postgresql:/h",
        "postgresql://h:x/d",
        "postgresql://h:0/d",
        "postgresql://h/d?a",
        "postgresql://u:%@h/d",
    ],
)
def test_refused_database_urls(problems: Problems, value: str) -> None:
    """A database URL that libpq could not read is refused at the start, not at the first request."""
    (told,) = problems(DATABASE_URL=value)
    assert told.startswith("DATABASE_URL: ")


def test_static_keys(read: Read) -> None:
    """VALID_API_KEYS is a list of key, organization and tier."""
    found = read(VALID_API_KEYS="sk_test_abc123:org_1:premium, another-key!:00000000-0000-0000-0000-000000000001:basic")
    assert found.static_keys == (
        StaticKey("sk_test_abc123", "org_1", "premium"),
        StaticKey("another-key!", "00000000-0000-0000-0000-000000000001", "basic"),
    )


@pytest.mark.parametrize(
    "value",
    [
        "verysecret",
        "verysecret:org",
        "verysecret:org:gold",
        "short:org:basic",
        "verysecret:o g:basic",
        "verysecret:org:basic,verysecret:org2:basic",
        "verysecret:org:basic,",
        "very secret:org:basic",
    ],
)
def test_refused_static_keys(problems: Problems, value: str) -> None:
    """A mistake in VALID_API_KEYS is told without showing any part of it."""
    (told,) = problems(VALID_API_KEYS=value)
    assert told.startswith("VALID_API_KEYS: ")
    assert "verysecret" not in told
    assert "short" not in told


def test_someone_must_get_in(problems: Problems, read: Read) -> None:
    """Without DATABASE_URL and VALID_API_KEYS the gateway does not start; an empty variable counts as none."""
    (told,) = problems(VALID_API_KEYS="", DATABASE_URL="")
    assert "DATABASE_URL" in told
    assert read(VALID_API_KEYS="", DATABASE_URL="postgres://h/d").static_keys == ()


def test_backends_are_required(problems: Problems) -> None:
    """Without BACKEND_URLS the gateway does not start."""
    (told,) = problems(BACKEND_URLS="")
    assert told.startswith("BACKEND_URLS: is not set, expected ")


def test_secrets_stay_out_of_problems_and_repr(problems: Problems, read: Read) -> None:
    """No password and no key shows in a problem or in the settings' repr."""
    told = problems(REDIS_URL="redis://:hunter2@h:x", DATABASE_URL="postgres://u:hunter2@h:x/d")
    assert "hunter2" not in " ".join(told)
    found = read(REDIS_URL="redis://:hunter2@h", DATABASE_URL="postgres://u:hunter2@h/d", REDIS_PASSWORD="hunter2")
    assert "hunter2" not in repr(found)
    assert "abc123" not in repr(found)


PASTED = (
    f"sk_live_{'0' * 24}0123456789abcdef",
    "https://someone:0123456789abcdef@a-host-with-a-name-of-quite-some-length.example.com",
    "https://0123456789abcdef@host",
    "redis://:0123456789abcdef@host/none",
)


@pytest.mark.parametrize("kind", [GatewaySettings, AdminSettings])
@pytest.mark.parametrize("name", sorted(NAMES))
@pytest.mark.usefixtures("read")  # for its empty surroundings
def test_what_is_pasted_into_the_wrong_variable_is_not_repeated(
    kind: type[DatabaseSettings], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever variable a key or a URL with a password ends up in, no problem shows it."""
    for value in PASTED:
        for each in (value, f"api={value}", f"{value},{value}", f"{value}:x:y", f"x:y:{value}"):
            monkeypatch.setenv(name, each)
            try:
                load(kind)
            except SettingsError as refused:
                assert "0123456789abcdef" not in str(refused)  # noqa: PT017 - some values will do


def test_dotenv_fills_what_the_environment_lacks(read: Read, tmp_path: Path) -> None:
    """A `.env` in the working directory gives what the environment does not, and never more."""
    (tmp_path / ".env").write_text("GATEWAY_PORT=9004\nLOG_LEVEL=debug\nUNKNOWN=1\nREDIS_ADDR=\n")
    found = read(LOG_LEVEL="error")
    assert (found.port, found.log_level, found.redis) == (9004, "error", None)


def test_unreadable_dotenv(problems: Problems, tmp_path: Path) -> None:
    """A `.env` that is no text is a mistake with a name, not a traceback."""
    (tmp_path / ".env").write_bytes(b"PORT=\xff\xfe\n")
    (told,) = problems()
    assert told.startswith(".env: ")


@given(
    text=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40),
    name=st.sampled_from(sorted(NAMES)),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
def test_any_text_is_a_value_or_a_named_problem(read: Read, name: str, text: str) -> None:
    """Whatever stands in a variable, loading gives settings or problems under its name, nothing else."""
    try:
        read(**{name: text})
    except SettingsError as refused:
        told = refused.problems
    else:
        told = ()
    assert all(": " in problem and "expected" in problem for problem in told)


def test_mains_print_one_line_a_problem(tmp_path: Path) -> None:
    """A main with a wrong environment prints one line for each mistake on standard error and ends with status 1."""
    code = "from app.core.process.settings import *; load_or_exit(GatewaySettings)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PORT": "x", "LOG_LEVEL": "y", "BACKEND_URLS": "a=http://b"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("Failed to load configuration: ") for line in lines)


def test_tools_need_no_backend(monkeypatch: pytest.MonkeyPatch, read: Read) -> None:
    """The tools' settings ask for nothing that only the gateway needs."""
    monkeypatch.setenv("DATABASE_URL", "postgres://h/d")
    assert load(DatabaseSettings).database_url == "postgres://h/d"
