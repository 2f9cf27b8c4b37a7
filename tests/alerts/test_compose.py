"""docker-compose.yml against all that it mounts: no container runs here, so names, ports and files are compared."""

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from farebox_collector.model.credentials import Scope, key_id_of
from farebox_collector.model.secret_box import SecretBox, secrets_keys
from farebox_collector.settings import Settings

REPOSITORY = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
LISTENS = {
    "collector-1": {4317, 4318, 8080, 9464},
    "collector-2": {4317, 4318, 8080, 9464},
    "postgres": {5432},
    "balancer": {4317, 4318, 8080},
    "otelcol": {4317, 4318, 13133},
    "tempo": {3200, 4317},
    "prometheus": {9090},
    "alertmanager": {9093},
    "grafana": {3000},
    "model-server": {8090},
}
"""What each image listens on, by its documentation or by the configuration that is mounted into it."""
SECRETS: dict[str, set[str]] = {
    "roles": {f"postgres_{role}_password" for role in ("superuser", "migrate", "write", "read")},
    "postgres": {"postgres_superuser_password"},
    "migrate": {"postgres_migrate_password"},
    "grants": {"postgres_migrate_password"},
    "keys": {"postgres_write_password", "secrets_key", "otelcol_key", "alertmanager_key", "prometheus_key"},
    "farebox": {"postgres_write_password", "secrets_key"},
    "collector-1": {"postgres_write_password", "secrets_key"},
    "collector-2": {"postgres_write_password", "secrets_key"},
    "otelcol": {"otelcol_key", "application_token"},
    "prometheus": {"prometheus_key"},
    "alertmanager": {"alertmanager_key", "pagerduty_key", "slack_url"},
    "grafana": {"grafana_password", "postgres_read_password"},
    "demo": {"application_token"},
}
"""The secrets that each service is given: it gets no other. Services that are not here have none."""
KEYS = {"otelcol": {Scope.INGEST}, "alertmanager": {Scope.ALERTS}, "prometheus": {Scope.READ}}
"""The scopes of each component's key."""

_SECRET = re.compile(r"(?i)\b(\w*(?:password|secret|api_key|token)\w*):[ ]+(\S+)")
each_service = pytest.mark.parametrize("name", SERVICES)


def text(path: str) -> str:
    return (REPOSITORY / path).read_text(encoding="utf-8")


def networks(name: str) -> set[str]:
    return set(SERVICES[name].get("networks", ()))


def resolve(host: str) -> str:
    """The service that a host name leads to."""
    for name, service in SERVICES.items():
        attached = service.get("networks", {})
        aliases = [a for net in attached.values() for a in net.get("aliases", ())] if isinstance(attached, dict) else []
        if host == name or host in aliases:
            return name
    raise AssertionError(f"no service is called {host}")


def assert_reachable(caller: str, address: str) -> None:
    """A host and port that one service calls: another service listens there, on a shared network."""
    split = urlsplit(address if "//" in address else f"//{address}")
    assert split.hostname
    service = resolve(split.hostname)
    assert split.port in LISTENS[service], address
    assert networks(caller) & networks(service), f"{caller} cannot reach {service}"


def follows_the_schema(path: Path) -> bool:
    """Whether the Compose Specification's JSON schema, which comes with the checker, takes a file."""
    command = (sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path))
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_the_file_follows_the_schema_of_the_compose_specification(tmp_path: Path) -> None:
    assert follows_the_schema(REPOSITORY / "docker-compose.yml")
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text(text("docker-compose.yml").replace("healthcheck:", "health_check:", 1), encoding="utf-8")
    assert not follows_the_schema(wrong)


@each_service
def test_mounts_exist_and_volumes_are_declared(name: str) -> None:
    for mount in SERVICES[name].get("volumes", ()):
        source, target, *mode = mount.split(":")
        if source.startswith("./"):
            assert (REPOSITORY / source).exists(), mount
            assert mode == ["ro"], f"{mount}: nothing in a container writes the repository"
        else:
            assert source in COMPOSE["volumes"], mount
        assert target.startswith("/")


@each_service
def test_images_are_pinned_and_nothing_is_published_beyond_loopback(name: str) -> None:
    service = SERVICES[name]
    image, _, tag = service["image"].rpartition(":")
    assert image
    assert tag
    assert tag != "latest"
    if tag == "local":
        dockerfile = text(service["build"]["dockerfile"])
        assert f" AS {service['build']['target']}\n" in dockerfile
    for port in service.get("ports", ()):
        assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port), port
        assert int(port.split(":")[1]) in LISTENS[name]
        assert "outside" in networks(name), "what is published needs a network that leads out"


@each_service
def test_dependencies_exist_and_can_become_what_is_waited_for(name: str) -> None:
    for other, wanted in SERVICES[name].get("depends_on", {}).items():
        assert other in SERVICES
        if wanted["condition"] == "service_healthy":
            assert "healthcheck" in SERVICES[other], f"{name} waits for the health of {other}"
    assert networks(name) <= set(COMPOSE["networks"])


@each_service
def test_what_runs_for_long_may_do_little(name: str) -> None:
    service = SERVICES[name]
    if name in ("first-start", "postgres"):
        return
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def secrets_of(name: str) -> dict[str, str]:
    """The secrets of a service, and where each is in its container."""
    named = [one if isinstance(one, dict) else {"source": one} for one in SERVICES[name].get("secrets", ())]
    return {one["source"]: one.get("target", f"/run/secrets/{one['source']}") for one in named}


@each_service
def test_a_service_gets_its_own_secrets_and_no_volume_of_all(name: str) -> None:
    assert set(secrets_of(name)) == SECRETS.get(name, set())
    assert not any("secret" in mount for mount in SERVICES[name].get("volumes", ()))
    told = str({key: value for key, value in SERVICES[name].items() if key != "secrets"})
    read = set(re.findall(r"/run/secrets/(\w+)", told)) | set(re.findall(r"/with-password\.sh', '(\w+)'", told))
    assert read <= set(secrets_of(name)), "what it is told to read, it is given"


def test_each_secret_is_a_file_that_the_script_makes_and_others_cannot_reach(tmp_path: Path) -> None:
    directory = tmp_path / "secrets"
    script = ("sh", str(REPOSITORY / "deploy/make-secrets.sh"), str(directory))
    subprocess.run(script, check=True, umask=0)
    made = {path.name: path.read_text(encoding="utf-8") for path in directory.iterdir()}
    files = {name: secret["file"] for name, secret in COMPOSE["secrets"].items()}
    assert files == {name: f"deploy/secrets/{name}" for name in made}
    assert set(made) == set().union(*SECRETS.values())
    assert "deploy/secrets/" in text(".gitignore").splitlines()
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o444}
    random = {name: value for name, value in made.items() if name not in ("pagerduty_key", "slack_url")}
    assert len(set(random.values())) == len(random)
    assert all(len(value) >= 44 and value == value.strip() for value in random.values())
    assert all(key_id_of(made[f"{component}_key"]) for component in KEYS)
    assert SecretBox(secrets_keys(made["secrets_key"])).has_key
    (directory / "slack_url").chmod(0o600)
    (directory / "slack_url").write_text("https://chat.example", encoding="utf-8")
    subprocess.run(script, check=True)
    again = {path.name: path.read_text(encoding="utf-8") for path in directory.iterdir()}
    assert again == made | {"slack_url": "https://chat.example"}, "what is there stays"


def test_each_component_has_a_key_of_its_own_with_one_scope() -> None:
    script = SERVICES["keys"]["command"][-1]
    made = re.findall(r"^farebox keys create (\S+) ((?:--scope \S+ )+)--key-file /run/secrets/(\S+)$", script, re.M)
    assert len(made) == len(script.splitlines())
    assert {name: set(scopes.replace("--scope", "").split()) for name, scopes, _ in made} == KEYS
    assert {name: file for name, _, file in made} == {name: f"{name}_key" for name in KEYS}
    for name in KEYS:
        holders = {service for service in SERVICES if f"{name}_key" in secrets_of(service)}
        assert holders == {name, "keys"}


def test_the_database_is_used_by_roles_and_its_superuser_by_one_start_only() -> None:
    users = {
        name: urlsplit(service["environment"]["FAREBOX_DATABASE_URL"]).username
        for name, service in SERVICES.items()
        if "FAREBOX_DATABASE_URL" in service.get("environment", {})
    }
    written = ("collector-1", "collector-2", "farebox", "keys")
    assert users == {"migrate": "farebox_migrate"} | dict.fromkeys(written, "farebox_write")
    for name, role in {**users, "grants": "farebox_migrate", "roles": "farebox_superuser"}.items():
        assert f"postgres_{role.removeprefix('farebox_')}_password" in SERVICES[name]["entrypoint"]
    superusers = {name for name in SERVICES if "postgres_superuser_password" in secrets_of(name)}
    assert superusers == {"postgres", "roles"}
    (source,) = (one for one in yaml.safe_load(text("deploy/grafana/datasources.yml"))["datasources"] if "user" in one)
    assert source["user"] == "farebox_read"
    assert source["secureJsonData"]["password"] == "$__file{/run/secrets/postgres_read_password}"
    order = ["postgres", "roles", "migrate", "grants", "keys", "collector-1"]
    for earlier, later in pairwise(order):
        assert earlier in SERVICES[later]["depends_on"]
    assert "grants" in SERVICES["grafana"]["depends_on"]


def test_nothing_is_published_without_a_key() -> None:
    """The API wants keys, the queue in front a token, Grafana a password; what asks for nothing is not published."""
    published = {name for name, service in SERVICES.items() if service.get("ports")}
    assert published == {"balancer", "otelcol", "grafana"}
    queue = yaml.safe_load(text("deploy/otelcol.yaml"))
    for protocol in queue["receivers"]["otlp"]["protocols"].values():
        authenticator = protocol["auth"]["authenticator"]
        assert authenticator in queue["service"]["extensions"]
        assert queue["extensions"][authenticator]["filename"] == secrets_of("otelcol")["application_token"]
    key = queue["exporters"]["otlp/farebox"]["headers"]["authorization"]
    assert key == f"Bearer ${{file:{secrets_of('otelcol')['otelcol_key']}}}"
    grafana = SERVICES["grafana"]["environment"]
    assert grafana["GF_SECURITY_ADMIN_PASSWORD__FILE"] == secrets_of("grafana")["grafana_password"]
    assert not any(name.startswith("GF_AUTH_ANONYMOUS") for name in grafana)
    for name in ("collector-1", "collector-2"):
        assert "FAREBOX_METRICS_WITHOUT_KEY" not in SERVICES[name]["environment"]


def test_prometheus_runs_the_rules_of_the_repository_with_a_key() -> None:
    ours, deployed = (yaml.safe_load(text(f"{place}/prometheus.yml")) for place in ("alerts", "deploy"))
    (job,) = (job for job in deployed["scrape_configs"] if job["job_name"] == "farebox")
    assert job.pop("authorization") == {"credentials_file": secrets_of("prometheus")["prometheus_key"]}
    assert deployed == ours


def test_no_secret_is_in_any_file() -> None:
    paths = ["docker-compose.yml", *(str(p.relative_to(REPOSITORY)) for p in (REPOSITORY / "deploy").rglob("*.*"))]
    for path in paths:
        if path.endswith(".pyc"):
            continue
        for key, value in re.findall(_SECRET, re.sub(r"#.*", "", text(path))):
            # Lists of names, and the files of secrets, are compared above.
            named = key == "secrets" or value == "{file:"
            read = value.startswith(("/run/secrets/", "$__file{/run/secrets/"))
            assert named or read, f"{path}: {key}"


def test_settings_of_the_collector_are_settings() -> None:
    for name in ("collector-1", "collector-2"):
        environment = dict(SERVICES[name]["environment"])
        assert {key.removeprefix("FAREBOX_").lower() for key in environment} <= set(Settings.model_fields)
        assert environment.pop("FAREBOX_SECRETS_KEY_FILE") == secrets_of(name)["secrets_key"]
        values = {key.removeprefix("FAREBOX_").lower(): value for key, value in environment.items()}
        made = Settings(**values)
        for address in made.addresses.values():
            assert int(address.rpartition(":")[2]) in LISTENS[name]
        assert_reachable(name, "postgres:5432")
        assert made.database_url.startswith("postgresql+psycopg://farebox_write@postgres/farebox")
        assert {"collector", name} <= set(made.allowed_hosts)


def test_prometheus_and_alertmanager_reach_what_they_ask() -> None:
    for path in sorted((REPOSITORY / "alerts/targets").glob("*.yml")):
        for group in yaml.safe_load(path.read_text(encoding="utf-8")):
            for target in group["targets"]:
                assert_reachable("prometheus", target)
    collectors = yaml.safe_load(text("alerts/targets/collectors.yml"))[0]["targets"]
    assert {target.split(":")[0] for target in collectors} == {"collector-1", "collector-2"}
    routes = yaml.safe_load(text("alerts/alertmanager.yml"))
    webhooks = [hook for receiver in routes["receivers"] for hook in receiver.get("webhook_configs", ())]
    assert webhooks
    for hook in webhooks:
        assert_reachable("alertmanager", hook["url"])
        key = hook["http_config"]["authorization"]["credentials_file"]
        assert secrets_of("alertmanager")["alertmanager_key"] == f"/etc/alertmanager/{key}"


def test_the_balancer_and_the_queue_lead_to_the_collectors() -> None:
    configuration = text("deploy/nginx.conf")
    assert {int(port) for port in re.findall(r"listen (\d+);", configuration)} == LISTENS["balancer"]
    upstreams = re.findall(r"server ([\w-]+:\d+);", configuration)
    assert len(upstreams) == 6
    for address in upstreams:
        assert_reachable("balancer", address)
    queue = yaml.safe_load(text("deploy/otelcol.yaml"))
    for exporter in queue["exporters"].values():
        assert_reachable("otelcol", exporter["endpoint"])
    farebox = queue["exporters"]["otlp/farebox"]
    assert farebox["sending_queue"]["storage"] in queue["service"]["extensions"], "the queue survives a restart"
    assert queue["extensions"]["file_storage"]["directory"] in {
        mount.split(":")[1] for mount in SERVICES["otelcol"]["volumes"]
    }
    assert farebox["retry_on_failure"]["max_elapsed_time"] == "0s", "nothing is given up"


def test_grafana_finds_its_sources_and_dashboards() -> None:
    sources = {
        source["uid"]: source for source in yaml.safe_load(text("deploy/grafana/datasources.yml"))["datasources"]
    }
    for source in sources.values():
        assert_reachable("grafana", source["url"])
    assert sources["prometheus"]["jsonData"]["exemplarTraceIdDestinations"][0]["datasourceUid"] in sources
    (provider,) = yaml.safe_load(text("deploy/grafana/dashboards.yml"))["providers"]
    assert f"./dashboards:{provider['options']['path']}:ro" in SERVICES["grafana"]["volumes"]
    for board in (REPOSITORY / "dashboards").glob("*.json"):
        for variable in yaml.safe_load(board.read_text(encoding="utf-8"))["templating"]["list"]:
            if variable["type"] == "datasource":
                assert sources[variable["current"]["value"]]["type"] == variable["query"]


def test_the_demo_sends_to_the_queue() -> None:
    assert_reachable("demo", SERVICES["demo"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"])
    assert_reachable("demo", "model-server:8090")
    assert "http://model-server:8090" in text("deploy/Dockerfile")


def test_the_images_lock_is_part_of_the_lock() -> None:
    def pins(path: str) -> set[str]:
        return set(re.findall(r"^([\w.\[\],-]+==\S+)", text(path), re.MULTILINE))

    def bare(found: set[str]) -> set[str]:
        return {re.sub(r"\[.*?\]", "", pin) for pin in found}

    assert bare(pins("deploy/requirements.lock")) <= bare(pins("requirements.lock")), "run `make lock`"
    named = set(re.findall(r'^    "([a-z0-9-]+)', text("pyproject.toml").split("[project.scripts]")[0], re.MULTILINE))
    assert named <= {pin.split("==")[0] for pin in bare(pins("deploy/requirements.lock"))}, "run `make lock`"


def test_the_dockerfile_runs_nothing_as_root_and_copies_what_is_let_in() -> None:
    dockerfile = text("deploy/Dockerfile")
    stages = dockerfile.split("\nFROM ")
    for stage in stages[1:]:
        if " AS build" in stage:
            continue
        assert re.search(r"^USER 10001$", stage, re.MULTILINE)
    let_in = {line[1:] for line in text(".dockerignore").splitlines() if line.startswith("!")}
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert copied
    for source in copied:
        assert (REPOSITORY / source).exists(), source
        assert source in let_in or Path(source).parts[0] in let_in, source
