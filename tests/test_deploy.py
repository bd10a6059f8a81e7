"""The service unit, the image and the manifests start the program with arguments that it knows, as nobody in particular.

Kubernetes' own objects, and the pods in those of KubeRay, are compared with its schemas, which `kubernetes-validate` ships. No
package on PyPI ships those of KubeRay, CloudNativePG or Compose.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from openbook.cli import command
from tests.conftest import ROOT

DEPLOY = ROOT / "deploy"


def started(words: list[str]) -> dict[str, object]:
    """The parameters of `openbook WORDS`, without running it. Raises click's errors for what it does not know."""
    verb = command.get_command(click.Context(command), words[0])
    assert verb is not None
    return verb.make_context(words[0], words[1:]).params


def unit() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / "openbook.service").read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_the_unit_starts_a_server_that_demands_a_key_and_may_write_nothing_but_the_home() -> None:
    (line,) = unit()["ExecStart"]
    program, *words = shlex.split(line)
    assert Path(program).name == "openbook"
    assert started(words)["require_key"] is True
    found = unit()
    home = "/var/lib/openbook"
    assert found["Environment"] == [f"OPENBOOK_HOME={home}"]
    assert (found["ProtectSystem"], found["ReadWritePaths"]) == (["strict"], [home])
    assert (found["NoNewPrivileges"], found["User"], found["CapabilityBoundingSet"]) == (["yes"], ["openbook"], [""])


def test_the_image_starts_a_server_for_others_as_a_user_of_its_own() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    (entry,) = (json.loads(line.removeprefix("ENTRYPOINT ")) for line in lines if line.startswith("ENTRYPOINT "))
    (words,) = (json.loads(line.removeprefix("CMD ")) for line in lines if line.startswith("CMD "))
    assert entry == ["openbook"]
    assert started(words)["host"] == "0.0.0.0"
    assert [line for line in lines if line.startswith("USER ")] == ["USER 10001:10001"]
    (check,) = (line for line in lines if line.startswith("HEALTHCHECK"))
    assert re.search(r"http://127\.0\.0\.1:8000/ready", check)


@pytest.mark.parametrize("line", re.findall(r"openbook (serve [^\n]+)", (ROOT / "docs" / "operations.md").read_text()))
def test_servers_in_the_documentation_can_be_started(line: str) -> None:
    assert started(shlex.split(line))


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


def test_the_compose_file_is_one_and_needs_what_it_has() -> None:
    found = compose()
    services = found["services"]
    assert {name: service["ports"] for name, service in services.items() if "ports" in service} == {
        "server": ["127.0.0.1:8000:8000"]  # it alone can be reached, and from this machine alone
    }
    assert all(service["restart"] == "unless-stopped" and "privileged" not in service for service in services.values())
    for name, service in services.items():
        assert service.get("depends_on", {}).keys() <= services.keys() - {name}
        assert all("healthcheck" in services[each] for each in service.get("depends_on", {}))
        named = {each.partition(":")[0] for each in service.get("volumes", []) if not each.startswith("/")}
        assert named <= found["volumes"].keys()
    assert (DEPLOY / services["ray"]["build"]["context"] / services["ray"]["build"]["dockerfile"]).is_file()
    (extras,) = re.findall(r"^ARG EXTRAS=(\w+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert extras in services["ray"]["build"]["args"]["EXTRAS"].split(",")


VERSION = "1.34"  # of Kubernetes
OF_OPERATORS = ("ray.io/", "postgresql.cnpg.io/", "barmancloud.cnpg.io/")


def manifests() -> list[dict[str, Any]]:
    folder = DEPLOY / "kubernetes"
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    files = {each.name for each in folder.iterdir()} - {"kustomization.yaml"}
    assert set(kustomization["resources"]) == files
    return [found for name in kustomization["resources"] for found in yaml.safe_load_all((folder / name).read_text())]


def pods(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    spec = manifest.get("spec", {})
    groups = [spec, spec.get("headGroupSpec", {}), *spec.get("workerGroupSpecs", [])]
    return [group["template"] for group in groups if "template" in group]


@pytest.mark.laws
def test_every_manifest_fits_its_schema() -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for found in manifests():
        if not found["apiVersion"].startswith(OF_OPERATORS):
            kubernetes_validate.validate(found, VERSION, strict=True)
        for template in pods(found):
            pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "pod"}, "template": template}
            kubernetes_validate.validate(pod, VERSION, strict=True)


def test_what_a_manifest_names_is_there() -> None:
    found = manifests()
    made_by_hand = {"openbook-objects", "openbook-ray"}  # secrets, docs/cluster.md
    made_by_operator = {"openbook-database-app", "openbook-database-rw", "openbook-head-svc"}
    names = {each["metadata"]["name"] for each in found} | made_by_hand | made_by_operator
    page = (ROOT / "docs" / "cluster.md").read_text()
    assert all(f"kubectl -n openbook create secret generic {each}" in page for each in made_by_hand)
    text = "\n".join(json.dumps(each) for each in found)
    for key in ("secretKeyRef", "configMapRef", "secretRef", "accessKeyId", "cluster"):
        assert set(re.findall(rf'"{key}": {{"name": "([^"]+)"', text)) <= names, key
    for key in ("barmanObjectName", "claimName"):
        assert set(re.findall(rf'"{key}": "([^"]+)"', text)) <= names, key
    assert set(re.findall(r"openbook-[\w-]+-(?:rw|svc)", text)) <= names


def test_no_secret_stands_in_a_file_and_no_pod_is_root() -> None:
    found = manifests()
    assert not [each for each in found if each["kind"] == "Secret"]
    containers = [container for each in found for pod in pods(each) for container in pod["spec"]["containers"]]
    settings = [value for each in found if each["kind"] == "ConfigMap" for value in each["data"].items()]
    values = [(each["name"], each.get("value")) for container in containers for each in container["env"]]
    values += settings + [
        pair for service in compose()["services"].values() for pair in service.get("environment", {}).items()
    ]
    for name, value in values:
        if re.search(r"(PASSWORD|SECRET|TOKEN|KEY_ID)", name):
            assert value is None or re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), name
        assert not re.search(r"://[^/@]+:[^/@]+@", value or ""), name
    for each in containers:
        security = each["securityContext"]
        assert (security["runAsUser"], security["runAsNonRoot"]) == (10001, True)
        assert (security["allowPrivilegeEscalation"], security["capabilities"]) == (False, {"drop": ["ALL"]})


def shell_commands() -> list[str]:
    """What the server's container is told to run."""
    (deployed,) = (each for each in manifests() if each["kind"] == "Deployment")
    server = deployed["spec"]["template"]["spec"]["containers"][0]
    return [server["args"][0], compose()["services"]["server"]["command"][0]]


@pytest.mark.parametrize("line", shell_commands())
def test_servers_of_a_cluster_can_be_started(line: str) -> None:
    ray, openbook = line.split(" && ")
    assert shlex.split(ray)[:2] == ["ray", "start"]
    program, *words = shlex.split(openbook.removeprefix("exec "))
    assert program == "openbook"
    assert started(words)["host"] == "0.0.0.0"
