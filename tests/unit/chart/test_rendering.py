"""The objects that the chart renders from its values."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cinderblock.controller.settings import OperatorSettings
from cinderblock.controller.webhook.settings import WebhookSettings
from cinderblock.observability.alert import DAY, HOUR, AlertLimits
from tests.support.cluster.chart import CHART, EMBEDDED, EVERYTHING, NAMESPACE, Objects, helm, of_kind, render

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("settings", [(), EMBEDDED, EVERYTHING])
def test_lint_has_nothing_to_say(settings: tuple[str, ...]) -> None:
    done = helm("lint", "--strict", str(CHART), *(f"--set={setting}" for setting in settings))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_pod_fits_pod_security_restricted(rendered: Objects) -> None:
    pods = list(_pods(rendered))
    assert pods
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not any("hostPath" in volume for volume in pod["volumes"])
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}


def test_every_container_requests_resources_and_limits_its_memory(rendered: Objects) -> None:
    for pod in _pods(rendered):
        for container in pod["containers"]:
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]


def test_no_role_has_a_wildcard_or_hands_on_rights(rendered: Objects) -> None:
    rules = [rule for _, rule in _rules(rendered)]
    assert rules
    for rule in rules:
        words = {word for words in rule.values() for word in words}
        assert words.isdisjoint({"*", "escalate", "bind", "impersonate"})


def test_no_role_may_list_secrets_or_run_code_in_pods(rendered: Objects) -> None:
    for role, rule in _rules(rendered):
        if "secrets" in rule["resources"]:
            assert set(rule["verbs"]) <= {"get", "create", "patch", "update"}, role
        assert {"pods/exec", "pods/attach", "pods/portforward"}.isdisjoint(rule["resources"]), role


def test_only_the_operator_and_the_broker_read_unnamed_secrets() -> None:
    readers = [
        role
        for role, rule in _rules(render(*EVERYTHING))
        if "secrets" in rule["resources"] and "get" in rule["verbs"] and "resourceNames" not in rule
    ]
    # The broker has a Role: it reads only the Secrets of its own namespace.
    assert sorted(readers) == ["ClusterRole/cinderblock", "Role/cinderblock-broker"]


def test_operator_creates_and_deletes_only_what_schedules_drills_and_stores_need() -> None:
    ours = [rule for role, rule in _rules(render()) if role == "ClusterRole/cinderblock"
            and rule["apiGroups"] == ["cinderblock.io"]]  # fmt: skip
    assert ours
    for verb in ("create", "delete"):
        made = sorted(resource for rule in ours if verb in rule["verbs"] for resource in rule["resources"])
        assert made == ["backupstores", "backupverifications", "volumebackups", "volumerestores"]
    for rule in ours:
        assert {"deletecollection", "update"}.isdisjoint(rule["verbs"])


@pytest.mark.parametrize(
    ("setting", "word", "kinds"),
    [
        ("schedules.cluster=true", "all", {"backupschedules", "clusterbackupschedules"}),
        ("schedules.cluster=false", "namespaced", {"backupschedules"}),
        ("schedules.enabled=false", "none", set()),
    ],
)
def test_rights_for_schedules_follow_the_values(setting: str, word: str, kinds: set[str]) -> None:
    objects = render(setting)
    rules = [rule for role, rule in _rules(objects) if role == "ClusterRole/cinderblock"]
    readable = {name for rule in rules if "watch" in rule["verbs"] for name in rule["resources"]}
    assert {name for name in readable if "schedules" in name} == kinds
    # Imports create and delete VolumeBackups, too.
    assert any(rule["verbs"] == ["create", "delete"] and rule["resources"] == ["volumebackups"] for rule in rules)
    container = _deployment(objects, "cinderblock")["spec"]["template"]["spec"]["containers"][0]
    assert {"name": "CINDERBLOCK_SCHEDULES", "value": word} in container["env"]


def test_every_account_that_a_pod_uses_is_made_and_bound(rendered: Objects) -> None:
    made = {(item["metadata"]["namespace"], item["metadata"]["name"]) for item in of_kind(rendered, "ServiceAccount")}
    bound = {
        (subject["namespace"], subject["name"])
        for item in [*of_kind(rendered, "RoleBinding"), *of_kind(rendered, "ClusterRoleBinding")]
        for subject in item["subjects"]
    }
    used = {(NAMESPACE, pod["serviceAccountName"]) for pod in _pods(rendered) if "serviceAccountName" in pod}
    # The gateway acts with its callers' tokens: nothing is granted to its own account.
    assert used == made == bound | {account for account in made if account[1].endswith("-gateway")}


def test_every_binding_names_a_role_that_is_made(rendered: Objects) -> None:
    roles = {
        (item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"])
        for item in [*of_kind(rendered, "Role"), *of_kind(rendered, "ClusterRole")]
    }
    for item in [*of_kind(rendered, "RoleBinding"), *of_kind(rendered, "ClusterRoleBinding")]:
        namespace = item["metadata"].get("namespace")
        assert (item["roleRef"]["kind"], namespace, item["roleRef"]["name"]) in roles


def test_definitions_are_ours_and_stay_when_the_chart_goes() -> None:
    found = {item["metadata"]["name"]: item for item in of_kind(render(), "CustomResourceDefinition")}
    for path in (CHART / "crds-files").glob("*.yaml"):
        wanted = yaml.safe_load(path.read_text())
        item = found.pop(wanted["metadata"]["name"])
        assert item["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
        assert item["spec"] == wanted["spec"]
    assert not found


def test_administrator_chooses_the_longest_lock() -> None:
    for item in of_kind(render("stores.maxLockDays=3650"), "CustomResourceDefinition"):
        if item["spec"]["names"]["kind"] not in ("BackupStore", "ClusterBackupStore"):
            continue
        schema = item["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        period = schema["properties"]["spec"]["properties"]["objectLock"]["properties"]["period"]
        limit = period["x-kubernetes-validations"][1]
        assert limit["rule"].endswith("int(self.replace('d', '')) <= 3650")
        assert limit["message"] == "period is at most 3650 days"


def test_operator_without_cluster_stores_has_no_rights_for_them() -> None:
    for settings in (("stores.cluster=false",), ("stores.cluster=false", "watchNamespaces={shop}")):
        objects = render(*settings)
        rules = [rule for role, rule in _rules(objects) if "uninstall" not in role and "-view" not in role]
        assert not any("clusterbackupstores" in rule["resources"] for rule in rules)
        assert not any("backupstores" in rule["resources"] and "create" in rule["verbs"] for rule in rules
                       if rule["verbs"] != ["create", "update", "patch", "delete", "deletecollection"])  # fmt: skip
        container = _deployment(objects, "cinderblock")["spec"]["template"]["spec"]["containers"][0]
        assert {"name": "CINDERBLOCK_CLUSTER_STORES", "value": "false"} in container["env"]


def test_operator_understands_the_environment_that_it_gets() -> None:
    objects = render(
        "image.repository=registry.example.com/cinderblock", "image.tag=v2", "image.pullPolicy=Always",
        "mover.imagePullSecrets={a,b}", "mover.max=3", "mover.maxPerNamespace=2", "maxObjectsPerNamespace=99",
        "workers=4", "resyncSeconds=90", "schedules.cluster=false",
        "proxy.https=http://proxy:3128", "proxy.exceptions=.svc", "mover.labels.team=storage",
        "mover.annotations.example\\.org/mesh=no",
    )  # fmt: skip
    container = _deployment(objects, "cinderblock")["spec"]["template"]["spec"]["containers"][0]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert OperatorSettings.from_environment(environment) == OperatorSettings(
        mover_image="registry.example.com/cinderblock:v2",
        mover_image_pull_policy="Always",
        mover_image_pull_secrets=("a", "b"),
        mover_labels=(("team", "storage"),),
        mover_annotations=(("example.org/mesh", "no"),),
        proxies=(("HTTPS_PROXY", "http://proxy:3128"), ("NO_PROXY", ".svc")),
        max_movers=3,
        max_movers_per_namespace=2,
        max_objects_per_namespace=99,
        workers=4,
        resync_seconds=90.0,
        schedule_kinds=frozenset({"BackupSchedule"}),
        health_port=8080,
        lease_namespace=NAMESPACE,
        lease_name="cinderblock",
        release="cinderblock",
    )
    assert container["image"] == environment["CINDERBLOCK_MOVER_IMAGE"]
    assert container["ports"][0]["containerPort"] == 8080


def test_webhook_gets_its_settings_and_optional_files() -> None:
    objects = render(
        "webhook.url=https://hooks.example/x", "webhook.secretName=hook", "webhook.headerName=X-Token",
        "webhook.caConfigMap=authorities", "stores.allowedEndpoints={10.0.0.0/8}",
    )  # fmt: skip
    pod = _deployment(objects, "cinderblock")["spec"]["template"]["spec"]
    environment = {entry["name"]: entry["value"] for entry in pod["containers"][0]["env"]}
    settings = OperatorSettings.from_environment(environment).webhook
    folder = Path("/etc/cinderblock/webhook")
    assert settings == WebhookSettings("https://hooks.example/x", folder, "X-Token", allowed_endpoints=("10.0.0.0/8",))
    assert {"name": "webhook", "mountPath": str(folder), "readOnly": True} in pod["containers"][0]["volumeMounts"]
    [sources] = [volume["projected"]["sources"] for volume in pod["volumes"] if "projected" in volume]
    files = {}
    for source in sources:
        [(kind, found)] = source.items()
        assert found["optional"] is True
        files |= {item["path"]: (kind, found["name"], item["key"]) for item in found["items"]}
    assert files == {
        "url": ("secret", "hook", "url"),
        "header": ("secret", "hook", "header"),
        "ca.crt": ("configMap", "authorities", "ca.crt"),
    }


@pytest.mark.parametrize(
    ("settings", "url"),
    [((), None), (("webhook.secretName=hook",), ""), (("webhook.url=https://hooks.example",), "https://hooks.example")],
)
def test_webhook_exists_if_it_has_a_url(settings: tuple[str, ...], url: str | None) -> None:
    container = _deployment(render(*settings), "cinderblock")["spec"]["template"]["spec"]["containers"][0]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    found = OperatorSettings.from_environment(environment).webhook
    assert (found.url if found is not None else None) == url
    assert not any("WEBHOOK" in name or "ALERT" in name for name in environment) or settings


def test_webhook_has_the_limits_of_the_rules() -> None:
    def limits(*settings: str) -> AlertLimits | None:
        objects = render("webhook.secretName=hook", *(f"metrics.rules.{setting}" for setting in settings))
        container = _deployment(objects, "cinderblock")["spec"]["template"]["spec"]["containers"][0]
        environment = {entry["name"]: entry["value"] for entry in container["env"]}
        found = OperatorSettings.from_environment(environment).webhook
        return found.limits if found is not None else None

    assert limits() == AlertLimits()
    given = ("maxBackupAgeHours=50", "maxVerificationAgeDays=7", "requireVerification=true", "maxDrillAgeDays=30")
    assert limits(*given) == AlertLimits(50 * HOUR, 7 * DAY, requires_verification=True, drill_age=30 * DAY)


def test_every_further_value_is_used() -> None:
    objects = render(
        *EVERYTHING, "logLevel=debug", "podLabels.team=storage", "podAnnotations.note=x", "gateway.service.port=9999",
        "embeddedStore.resources.limits.memory=1Gi", "rbac.aggregateToUserRoles=false",
        "metrics.service.enabled=false", "metrics.serviceMonitor.enabled=false",
        "metrics.rules.maxBackupAgeHours=50", "metrics.rules.maxPendingMinutes=77",
        "metrics.rules.runbookUrl=https://example.org/runbook",
    )  # fmt: skip
    template = _deployment(objects, "cinderblock")["spec"]["template"]
    environment = {entry["name"]: entry["value"] for entry in template["spec"]["containers"][0]["env"]}
    assert environment["CINDERBLOCK_LOG_LEVEL"] == "debug"
    assert template["metadata"]["labels"]["team"] == "storage"
    assert template["metadata"]["annotations"]["note"] == "x"
    assert template["metadata"]["annotations"]["prometheus.io/port"] == "8081"
    services = {item["metadata"]["name"]: item["spec"]["ports"][0]["port"] for item in of_kind(objects, "Service")}
    assert services["cinderblock-gateway"] == 9999
    assert "cinderblock-metrics" not in services
    [ingress] = of_kind(objects, "Ingress")
    assert ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["port"] == {"number": 9999}
    [server] = _deployment(objects, "cinderblock-store")["spec"]["template"]["spec"]["containers"]
    assert server["resources"]["limits"]["memory"] == "1Gi"
    assert not [item for item in of_kind(objects, "ClusterRole") if "aggregate-to-" in str(item["metadata"]["labels"])]
    [rules] = of_kind(objects, "PrometheusRule")
    alerts = {rule["alert"]: rule for group in rules["spec"]["groups"] for rule in group["rules"] if "alert" in rule}
    assert str(50 * 3600) in alerts["CinderblockVolumeBackupStale"]["expr"]
    assert str(77 * 60) in alerts["CinderblockOperationOverdue"]["expr"]
    assert "https://example.org/runbook" in str(alerts["CinderblockOperationOverdue"]["annotations"])


def test_allowed_endpoints_include_the_embedded_store() -> None:
    allowed = "stores.allowedEndpoints={s3.example.com,http://10.0.0.0/8}"
    for settings, count in ((), 2), (EMBEDDED, 3):
        container = _deployment(render(allowed, *settings), "cinderblock")["spec"]["template"]["spec"]["containers"][0]
        environment = {entry["name"]: entry["value"] for entry in container["env"]}
        found = OperatorSettings.from_environment(environment).allowed_endpoints
        assert found[:2] == ("s3.example.com", "http://10.0.0.0/8")
        assert len(found) == count
        if count > 2:
            (setup,) = [job for job in of_kind(render(*settings), "Job") if "--endpoint-url" in str(job)]
            assert found[2] in str(setup)
    container = _deployment(render(*EMBEDDED), "cinderblock")["spec"]["template"]["spec"]["containers"][0]
    assert "CINDERBLOCK_ALLOWED_ENDPOINTS" not in str(container)


def test_one_operator_is_enough_and_an_update_starts_the_new_one_first() -> None:
    objects = render()
    spec = _deployment(objects, "cinderblock")["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    assert not of_kind(objects, "PodDisruptionBudget")
    assert "affinity" not in spec["template"]["spec"]


def test_several_operators_keep_apart_and_are_not_evicted_together() -> None:
    objects = render("operator.replicas=2")
    spec = _deployment(objects, "cinderblock")["spec"]
    assert spec["replicas"] == 2
    [term] = spec["template"]["spec"]["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert term["podAffinityTerm"]["labelSelector"] == spec["selector"]
    [budget] = of_kind(objects, "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1
    assert budget["spec"]["selector"] == spec["selector"]


def test_affinity_of_the_user_replaces_the_default() -> None:
    spec = _deployment(render("operator.replicas=2", "affinity.nodeAffinity.x=y"), "cinderblock")["spec"]
    assert spec["template"]["spec"]["affinity"] == {"nodeAffinity": {"x": "y"}}


def test_only_the_release_s_own_lease_may_be_touched(rendered: Objects) -> None:
    rules = [(role, rule) for role, rule in _rules(rendered) if "leases" in rule["resources"]]
    assert rules
    for role, rule in rules:
        assert role.startswith("Role/")
        assert rule["verbs"] == ["create"] or rule["resourceNames"] == ["cinderblock"]


def test_digest_wins_over_a_tag() -> None:
    digest = "sha256:" + "a" * 64
    spec = _deployment(render(f"image.digest={digest}", "image.tag=v2"), "cinderblock")["spec"]["template"]["spec"]
    assert spec["containers"][0]["image"] == f"localhost/cinderblock@{digest}"


def test_all_pods_have_the_same_scheduling_settings() -> None:
    objects = render(
        *EVERYTHING, "nodeSelector.disk=ssd", "tolerations[0].key=backup", "priorityClassName=high",
        "imagePullSecrets[0].name=registry", "affinity.nodeAffinity.x=y",
    )  # fmt: skip
    for pod in _pods(objects):
        assert pod["nodeSelector"] == {"disk": "ssd"}
        assert pod["tolerations"] == [{"key": "backup"}]
        assert pod["priorityClassName"] == "high"
        assert pod["imagePullSecrets"] == [{"name": "registry"}]
        assert pod["affinity"] == {"nodeAffinity": {"x": "y"}}


@pytest.mark.parametrize(
    "setting",
    [
        "nonsense=1", "image.name=x", "mover.maximum=1", "workers=0", "workers=many", "image.pullPolicy=Sometimes",
        "embeddedStore.enabled=true", "embeddedStore.namespaces={Demo}", "uninstall.releaseFinalizers=sometimes",
        "resources.request.cpu=1", "admissionPolicies.validationActions={Deny,Warn}",
        "admissionPolicies.validationActions={Deny,Audit,Warn}", "admissionPolicies.validationActions={}",
        "admissionPolicies.moverAdditions.env={LD_PRELOAD}", "admissionPolicies.moverAdditions.volumes.ca=/usr/lib",
        "admissionPolicies.moverAdditions.fields={hostNetwork}",
    ],
)  # fmt: skip
def test_wrong_value_is_refused(setting: str) -> None:
    done = helm("template", "cinderblock", str(CHART), f"--set={setting}")
    assert done.returncode != 0
    assert "don't meet the specifications of the schema" in done.stderr


def test_plain_rendering_holds_no_uninstall_hooks() -> None:
    assert not [item for item in render(*EMBEDDED) if "helm.sh/hook" in item["metadata"].get("annotations", {})]


def test_uninstall_objects_exist_only_during_the_uninstallation() -> None:
    hooks = [item for item in render(*EVERYTHING) if "helm.sh/hook" in item["metadata"].get("annotations", {})]
    kinds = {"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "Job"}
    assert {item["kind"] for item in hooks} == kinds
    for item in hooks:
        assert item["metadata"]["annotations"]["helm.sh/hook"] == "pre-delete"
        assert "hook-succeeded" in item["metadata"]["annotations"]["helm.sh/hook-delete-policy"]
        assert (item["kind"] == "Job") == (item["metadata"]["annotations"]["helm.sh/hook-weight"] == "0")


def test_two_renderings_are_equal_and_hold_no_secret() -> None:
    first, second = render(*EVERYTHING), render(*EVERYTHING)
    assert first == second
    # The broker itself fills this one.
    assert [(item["metadata"]["name"], item.get("data")) for item in of_kind(first, "Secret")] == [
        ("cinderblock-broker-tls", None)
    ]


def test_embedded_store_is_disabled_by_default() -> None:
    objects = render()
    assert {item["kind"] for item in objects}.isdisjoint({"Job", "Namespace", "PersistentVolumeClaim"})
    assert [item["metadata"]["name"] for item in of_kind(objects, "Service")] == ["cinderblock-metrics"]


def test_user_data_stays_when_the_chart_is_uninstalled() -> None:
    objects = render(*EVERYTHING)
    precious = [*of_kind(objects, "PersistentVolumeClaim"), *of_kind(objects, "Namespace")]
    assert [item["metadata"]["name"] for item in precious] == ["cinderblock-store", "demo", "shop"]
    for item in precious:
        assert item["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_namespaces_are_created_only_on_request() -> None:
    assert not of_kind(render(*EMBEDDED), "Namespace")


def test_s3_server_has_no_account_of_kubernetes_and_one_volume() -> None:
    deployment = _deployment(render(*EMBEDDED), "cinderblock-store")
    pod = deployment["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in pod
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsUser"]
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}


def test_setup_job_is_renamed_when_its_work_changes() -> None:
    def name(*settings: str) -> str:
        [job] = of_kind(render(*settings), "Job")
        return str(job["metadata"]["name"])

    assert name(*EMBEDDED) == name(*EMBEDDED, "workers=3")
    more = ("embeddedStore.enabled=true", "embeddedStore.namespaces={demo,shop,new}")
    assert len({name(*EMBEDDED), name(*more), name(*EMBEDDED, "image.tag=v2")}) == 3


def test_setup_job_may_do_something_in_every_namespace_and_nowhere_else() -> None:
    bound = {
        item["metadata"]["namespace"]
        for item in of_kind(render(*EMBEDDED), "RoleBinding")
        if item["subjects"][0]["name"] == "cinderblock-store-setup"
    }
    assert bound == {NAMESPACE, "demo", "shop"}


def test_notes_name_the_next_command_and_the_share_of_a_namespace() -> None:
    notes = _notes("mover.max=6")
    assert "kubectl apply -f examples/01-backupstore.yaml" in notes
    assert "At most 3 of 6 movers run in one namespace" in notes
    assert "mover.maxPerNamespace=6" in notes
    assert "movers run in one namespace" not in _notes("mover.maxPerNamespace=6")


def test_notes_warn_of_losing_the_cluster_and_the_key() -> None:
    notes = _notes(*EMBEDDED)
    assert "does not protect you against losing the cluster" in notes
    assert "kubectl -n demo get secret cinderblock-embedded-store-encryption -o yaml" in notes
    assert "kubectl -n shop get secret cinderblock-embedded-store-encryption -o yaml" in notes
    assert "kind: VolumeBackup" in notes


def test_notes_speak_of_no_key_where_there_is_none() -> None:
    assert "encryption" not in _notes(*EMBEDDED, "embeddedStore.encryption=false")


def _notes(*settings: str) -> str:
    options = [f"--set={setting}" for setting in settings]
    done = helm("install", "cinderblock", str(CHART), f"--namespace={NAMESPACE}", "--dry-run=client", *options)
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("NOTES:")[2]


def _deployment(objects: Objects, name: str) -> dict[str, Any]:
    [found] = [item for item in of_kind(objects, "Deployment") if item["metadata"]["name"] == name]
    return found


def _pods(objects: Objects) -> Iterator[dict[str, Any]]:
    for item in objects:
        if item["kind"] in ("Deployment", "Job"):
            yield item["spec"]["template"]["spec"]


def _rules(objects: Objects) -> Iterator[tuple[str, dict[str, list[str]]]]:
    for item in objects:
        if item["kind"] in ("Role", "ClusterRole"):
            for rule in item["rules"]:
                yield f"{item['kind']}/{item['metadata']['name']}", rule


def test_role_for_checks_is_bound_only_where_the_values_say_so() -> None:
    def of_checks(*values: str) -> list[tuple[str, str | None]]:
        found = [item for item in render(*values) if item["metadata"]["name"] == "cinderblock-checks"]
        return [(item["kind"], item["metadata"].get("namespace")) for item in found]

    assert of_checks() == [("ClusterRole", None)]
    bound = of_checks("verification.checks.namespaces={demo,shop}")
    assert bound == [("ClusterRole", None), ("RoleBinding", "demo"), ("RoleBinding", "shop")]
    assert of_checks("verification.checks.enabled=false") == []
    rules = [rule for role, rule in _rules(render()) if role == "ClusterRole/cinderblock-checks"]
    assert rules == [{"apiGroups": ["batch"], "resources": ["cronjobs"], "verbs": ["get"]}]
