"""The webhook tells a real HTTPS server what is wrong, once for each cause, and never shows a secret."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from cinderblock.controller.webhook import notifier as notifier_module
from cinderblock.controller.webhook import sender as sender_module
from cinderblock.controller.webhook.notifier import CHECK_SECONDS, MAX_DELAY_SECONDS, MAX_STATE_AGE_SECONDS, Notifier
from cinderblock.controller.webhook.settings import WebhookSettings
from cinderblock.errors import InvalidInput, KubeUnavailable
from cinderblock.observability.alerts import MAX_ALERTS
from cinderblock.observability.cluster_state import ClusterState, StoreMetrics
from cinderblock.observability.operator_metrics import OperatorMetrics
from cinderblock.observability.volume_metrics import VolumeMetrics
from tests.support.cluster.receivers import receiving

NOW = 1_777_896_000.0
LOOPBACK = ("127.0.0.0/8", "::1/128")
SECRETS = ("geheim-path", "geheim-token", "geheim-answer")
CONDITIONS_OF_A_RECEIVER = [301, 307, 401, 403, 404, 408, 410, 429, 500, 503]


class Cluster:
    """The cluster as the notifier reads it."""

    def __init__(self, *volumes: str) -> None:
        self.state: ClusterState | None = ClusterState()
        self.age = 0.0
        self.now = NOW
        for volume in volumes:
            self.fail(volume)

    def fail(self, volume: str, seconds_ago: float = 5.0) -> None:
        """Let the last backup of a volume fail."""
        assert self.state is not None
        failed = VolumeMetrics("shop", volume, last_failure=self.now - seconds_ago, failed_backup=f"daily-{volume}")
        self.state.volumes = [other for other in self.state.volumes if other.name != volume] + [failed]

    def recover(self) -> None:
        """Let all volumes have a good backup."""
        self.state = ClusterState()

    async def read(self) -> tuple[ClusterState | None, float]:
        return self.state, self.age

    async def source(self) -> str:
        return "/clusters/c-1/cinderblock/backup"


def a_notifier(cluster: Cluster, settings: WebhookSettings, metrics: OperatorMetrics | None = None) -> Notifier:
    return Notifier(settings, cluster.read, cluster.source, metrics or OperatorMetrics(), lambda: cluster.now)


def settings_for(url: str, folder: Path) -> WebhookSettings:
    return WebhookSettings(url=url, folder=folder, allowed_endpoints=LOOPBACK)


def counted(metrics: OperatorMetrics, result: str) -> float | None:
    return metrics.registry.get_sample_value("cinderblock_webhook_notifications_total", {"result": result})


def unsent(metrics: OperatorMetrics) -> float | None:
    return metrics.registry.get_sample_value("cinderblock_webhook_unsent")


async def test_event_is_a_structured_cloud_event(tmp_path: Path) -> None:
    (tmp_path / "header").write_text("Bearer geheim-token\n")
    async with receiving(tmp_path) as receiver:
        notifier = a_notifier(Cluster("data"), settings_for(receiver.url, tmp_path))
        assert await notifier.send_due() == CHECK_SECONDS
    [event], [headers] = receiver.events, receiver.requests
    assert headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert headers["authorization"] == "Bearer geheim-token"
    assert {key: value for key, value in event.items() if key not in ("id", "data")} == {
        "specversion": "1.0",
        "source": "/clusters/c-1/cinderblock/backup",
        "type": "io.cinderblock.alert.firing",
        "subject": "PersistentVolumeClaim/shop/data",
        "time": "2026-05-04T11:59:55Z",
        "datacontenttype": "application/json",
    }
    assert len(event["id"]) == 32
    assert event["data"] == {
        "alert": "CinderblockVolumeBackupFailed",
        "state": "firing",
        "severity": "warning",
        "kind": "PersistentVolumeClaim",
        "namespace": "shop",
        "name": "data",
        "since": "2026-05-04T11:59:55Z",
        "summary": "The last backup of volume shop/data failed.",
        "action": "kubectl -n shop describe volumebackup daily-data",
    }


async def test_alert_is_sent_once_then_daily_and_when_it_ends(tmp_path: Path) -> None:
    cluster = Cluster("data")
    async with receiving(tmp_path) as receiver:
        notifier = a_notifier(cluster, settings_for(receiver.url, tmp_path))
        for _ in range(3):
            await notifier.send_due()
        assert len(receiver.events) == 1
        cluster.now += 86400
        await notifier.send_due()
        await notifier.send_due()
        assert len(receiver.events) == 2
        cluster.recover()
        await notifier.send_due()
        await notifier.send_due()
    assert [state for _, state in receiver.alerts()] == ["firing", "firing", "resolved"]
    assert len({event["id"] for event in receiver.events}) == 3


async def test_restart_repeats_alerts_with_the_same_ids(tmp_path: Path) -> None:
    cluster = Cluster("data", "logs")
    async with receiving(tmp_path) as receiver:
        settings = settings_for(receiver.url, tmp_path)
        await a_notifier(cluster, settings).send_due()
        cluster.now += 3600
        await a_notifier(cluster, settings).send_due()
    first, second = receiver.events[:2], receiver.events[2:]
    assert first == second


async def test_further_failure_and_return_of_an_alert_have_other_ids(tmp_path: Path) -> None:
    cluster = Cluster("data")
    async with receiving(tmp_path) as receiver:
        notifier = a_notifier(cluster, settings_for(receiver.url, tmp_path))
        await notifier.send_due()
        cluster.now += 600
        cluster.fail("data")
        await notifier.send_due()
        failing = cluster.state
        cluster.recover()
        await notifier.send_due()
        cluster.now += 600
        cluster.state = failing
        await notifier.send_due()
    assert [state for _, state in receiver.alerts()] == ["firing", "firing", "resolved", "firing"]
    assert len({event["id"] for event in receiver.events}) == 4


@pytest.mark.parametrize("status", CONDITIONS_OF_A_RECEIVER)
async def test_event_waits_until_the_receiver_accepts_it(tmp_path: Path, status: int) -> None:
    cluster, metrics = Cluster("data"), OperatorMetrics()
    async with receiving(tmp_path) as receiver:
        receiver.answers = [(status, {"Location": receiver.url}), (status, {}), (200, {})]
        notifier = a_notifier(cluster, settings_for(receiver.url, tmp_path), metrics)
        delays = [await notifier.send_due() for _ in range(3)]
        assert delays == [5.0, 10.0, CHECK_SECONDS]
        await notifier.send_due()
    assert len(receiver.events) == 3
    assert len({event["id"] for event in receiver.events}) == 1
    assert (counted(metrics, "failed"), counted(metrics, "sent"), unsent(metrics)) == (2, 1, 0)


@pytest.mark.parametrize("status", [400, 413, 415, 422])
async def test_rejected_event_does_not_block_the_others(tmp_path: Path, status: int) -> None:
    metrics = OperatorMetrics()
    async with receiving(tmp_path) as receiver:
        receiver.answers = [(status, {}), (200, {})]
        notifier = a_notifier(Cluster("data", "logs"), settings_for(receiver.url, tmp_path), metrics)
        await notifier.send_due()
        await notifier.send_due()
    assert [event["data"]["name"] for event in receiver.events] == ["data", "logs"]
    assert (counted(metrics, "rejected"), counted(metrics, "sent")) == (1, 1)


async def test_alert_that_the_receiver_rejects_counts_as_unsent_while_it_lasts(tmp_path: Path) -> None:
    """A chat tool answers 400 to every CloudEvent. Nobody would notice that nothing arrives."""
    cluster, metrics = Cluster("data", "logs"), OperatorMetrics()
    async with receiving(tmp_path) as receiver:
        receiver.answers = [(400, {}), (200, {})]
        notifier = a_notifier(cluster, settings_for(receiver.url, tmp_path), metrics)
        for _ in range(2):
            await notifier.send_due()
            assert unsent(metrics) == 1
        assert len(receiver.events) == 2
        cluster.recover()
        await notifier.send_due()
    assert unsent(metrics) == 0


async def test_event_that_fails_again_and_again_does_not_block_the_others(tmp_path: Path) -> None:
    cluster = Cluster("a", "b", "c", "d")
    async with receiving(tmp_path) as receiver:
        receiver.refuses = {"a", "c"}
        notifier = a_notifier(cluster, settings_for(receiver.url, tmp_path))
        for _ in range(2 * notifier_module.TRIES):
            await notifier.send_due()
        assert [event["data"]["name"] for event in receiver.events] == ["a", "a", "a", "b", "c", "c", "c"]
        cluster.fail("new")
        await notifier.send_due()
        assert [event["data"]["name"] for event in receiver.events[7:]] == ["d", "new", "a"]
        receiver.refuses = set()
        receiver.events.clear()
        await notifier.send_due()
        await notifier.send_due()
    assert {event["data"]["name"] for event in receiver.events} == {"a", "c"}


async def test_delay_is_bounded_and_the_receiver_may_ask_for_a_longer_one(tmp_path: Path) -> None:
    async with receiving(tmp_path) as receiver:
        receiver.answers = [(429, {"Retry-After": "90"}), (503, {"Retry-After": "99999999"}), (503, {})]
        notifier = a_notifier(Cluster("data"), settings_for(receiver.url, tmp_path))
        delays = [await notifier.send_due() for _ in range(12)]
    assert delays[:2] == [90, sender_module.MAX_RETRY_AFTER_SECONDS]
    assert delays[2] == 20
    assert delays[-1] == MAX_DELAY_SECONDS


async def test_silent_receiver_costs_the_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_module, "REQUEST_SECONDS", 0.3)
    metrics = OperatorMetrics()
    async with receiving(tmp_path) as receiver:
        receiver.hangs = True
        notifier = a_notifier(Cluster("data"), settings_for(receiver.url, tmp_path), metrics)
        async with asyncio.timeout(5):
            assert await notifier.send_due() == 5.0
    assert counted(metrics, "failed") == 1


async def test_untrusted_certificate_gets_no_event(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with receiving(tmp_path) as receiver:
        (tmp_path / "ca.crt").unlink()
        assert await a_notifier(Cluster("data"), settings_for(receiver.url, tmp_path)).send_due() == 5.0
    assert receiver.requests == []
    assert "its certificate is not trusted: unable to get local issuer certificate" in caplog.text


async def test_certificate_of_another_host_gets_no_event(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with receiving(tmp_path, "other.example") as receiver:
        assert await a_notifier(Cluster("data"), settings_for(receiver.url, tmp_path)).send_due() == 5.0
    assert receiver.requests == []
    assert "its certificate is not trusted: Hostname mismatch" in caplog.text


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_address_of_the_node_gets_no_event(tmp_path: Path, host: str, caplog: pytest.LogCaptureFixture) -> None:
    async with receiving(tmp_path) as receiver:
        settings = WebhookSettings(url=receiver.url.replace("localhost", host), folder=tmp_path)
        notifier = a_notifier(Cluster("data"), settings)
        task = asyncio.create_task(notifier.run())
        await _until(lambda: "loopback, link-local" in caplog.text)
        task.cancel()
    assert receiver.requests == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://hooks.example/x", "begins with http://"),
        ("ftp://hooks.example/geheim-path", "is invalid"),
        ("https://user:geheim-token@hooks.example/", "is invalid"),
        ("https://hooks.example:geheim-path/", "is invalid"),
        ("https://hooks.example/a b", "is invalid"),
        ("https:///geheim-path", "is invalid"),
        ("", "has no URL"),
    ],
)
async def test_invalid_url_is_refused_without_showing_it(tmp_path: Path, url: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as refused:
        await a_notifier(Cluster("data"), settings_for(url, tmp_path)).send_due()
    assert not any(secret in refused.value.message for secret in SECRETS)


async def test_plain_http_needs_the_administrators_word(tmp_path: Path) -> None:
    async with receiving(tmp_path, tls=False) as receiver:
        settings = WebhookSettings(url=receiver.url, allow_plaintext=True, allowed_endpoints=("http://127.0.0.0/8",))
        await a_notifier(Cluster("data"), settings).send_due()
    assert len(receiver.events) == 1


@pytest.mark.parametrize("header", ["a\nb", "grün", "x" * 9000])
async def test_header_that_is_not_one_line_is_refused(tmp_path: Path, header: str) -> None:
    (tmp_path / "header").write_text(header)
    with pytest.raises(InvalidInput, match="key header"):
        await a_notifier(Cluster("data"), settings_for("https://hooks.example/", tmp_path)).send_due()


async def test_url_and_header_are_read_again_for_each_round(tmp_path: Path) -> None:
    cluster = Cluster("data")
    async with receiving(tmp_path) as receiver:
        (tmp_path / "url").write_text(receiver.url + "\n")
        notifier = a_notifier(cluster, WebhookSettings(folder=tmp_path, allowed_endpoints=LOOPBACK))
        for token in ("old", "new"):
            (tmp_path / "header").write_text(token)
            cluster.fail(f"data-{token}")
            await notifier.send_due()
    assert [headers["authorization"] for headers in receiver.requests] == ["old", "old", "new"]


async def test_nothing_that_is_logged_contains_a_secret(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / "header").write_text("Bearer geheim-token")
    cluster = Cluster("data")
    async with receiving(tmp_path) as receiver:
        receiver.answers = [
            (500, {"X-Echo": "geheim-answer"}),
            (302, {"Location": "/geheim-path"}),
            (422, {}),
            (200, {}),
        ]
        notifier = a_notifier(cluster, settings_for(receiver.url, tmp_path))
        for volume in ("b", "c", "d", "e"):
            cluster.fail(volume)
            await notifier.send_due()
        url = receiver.url
    cluster.fail("f")
    await a_notifier(cluster, settings_for(url, tmp_path)).send_due()
    lines = "\n".join(json.dumps(record.__dict__, default=str) for record in caplog.records)
    assert "it answered 500" in lines
    assert "the request failed (ClientConnectorError)" in lines
    assert not any(secret in lines for secret in SECRETS)


async def test_proxy_of_the_environment_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiving(tmp_path, tls=False) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.rpartition("/hooks")[0])
        monkeypatch.setenv("no_proxy", "localhost")
        settings = WebhookSettings(url="http://hooks.example/x", allow_plaintext=True)
        await a_notifier(Cluster("data"), settings).send_due()
    assert proxy.requests[0]["host"] == "hooks.example"


async def test_stale_or_missing_state_sends_nothing(tmp_path: Path) -> None:
    cluster = Cluster("data")
    async with receiving(tmp_path) as receiver:
        notifier = a_notifier(cluster, settings_for(receiver.url, tmp_path))
        cluster.age = MAX_STATE_AGE_SECONDS + 1
        assert await notifier.send_due() == CHECK_SECONDS
        cluster.state, cluster.age = None, 0.0
        assert await notifier.send_due() == notifier_module.FIRST_DELAY_SECONDS
    assert receiver.events == []


async def test_thousands_of_alerts_are_sent_in_batches_and_counted(tmp_path: Path) -> None:
    cluster, metrics = Cluster(), OperatorMetrics()
    assert cluster.state is not None
    cluster.state.stores = [StoreMetrics(f"n{n}", "s", is_ready=False, ready_since=NOW - 900) for n in range(1500)]
    async with receiving(tmp_path) as receiver:
        notifier = a_notifier(cluster, settings_for(receiver.url, tmp_path), metrics)
        assert await notifier.send_due() == 0.0
        assert (len(receiver.events), unsent(metrics)) == (100, 1400)
        while await notifier.send_due() == 0.0:
            pass
    assert len({event["id"] for event in receiver.events}) == len(receiver.events) == MAX_ALERTS
    assert unsent(metrics) == 500


async def test_errors_end_neither_the_task_nor_the_leadership(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    errors = [KubeUnavailable("The API server does not answer"), RuntimeError("a defect")]
    monkeypatch.setattr(notifier_module, "FIRST_DELAY_SECONDS", 0.01)
    monkeypatch.setattr(notifier_module, "MAX_DELAY_SECONDS", 0.01)

    class Failing(Cluster):
        async def read(self) -> tuple[ClusterState | None, float]:
            if errors:
                raise errors.pop(0)
            return await super().read()

    async with receiving(tmp_path) as receiver:
        task = asyncio.create_task(a_notifier(Failing("data"), settings_for(receiver.url, tmp_path)).run())
        await _until(lambda: bool(receiver.events))
        assert not task.done()
        task.cancel()
    assert "The API server does not answer" in caplog.text


async def _until(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_true():  # noqa: ASYNC110 - what is waited for signals nothing
            await asyncio.sleep(0.01)
