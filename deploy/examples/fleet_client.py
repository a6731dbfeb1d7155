#!/usr/bin/env python3
"""An example client of the supervisor, made from the `.proto` files alone.

It asks which services there are (server reflection), whether they and each instance are well
(grpc.health.v1), lists the instances, and with --restart restarts one and prints each phase until
it is ready again. Exit status: 0 if all that was asked succeeded, 1 if not, 2 on wrong usage.

    python3 -m venv venv
    venv/bin/pip install -r deploy/examples/requirements.txt
    mkdir generated
    venv/bin/python -m grpc_tools.protoc -I proto \\
        --python_out=generated --grpc_python_out=generated proto/openclaw/supervisor/v1/*.proto
    PYTHONPATH=generated venv/bin/python deploy/examples/fleet_client.py \\
        --socket /path/to/supervisor.sock --restart main
"""

import argparse
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status

from openclaw.supervisor.v1 import instance_pb2, instance_pb2_grpc, reason_pb2

UNARY_SECONDS = 10  # No unary call here waits for a gateway, so none takes long.
RESUME_SECONDS = 0.2  # Between two tries to take up a broken watch: soon, without spinning.
PAGE_SIZE = 100
NEEDED_SERVICES = {"openclaw.supervisor.v1.InstanceService", "grpc.health.v1.Health"}


class Failed(Exception):
    """What was asked for did not come about; the message says why."""


class Fleet:
    """The supervisor behind one Unix socket."""

    def __init__(self, socket: Path, deadline: float) -> None:
        """Connects to `socket`; `deadline` is in seconds of time.monotonic()."""
        self.deadline = deadline
        self.channel = grpc.insecure_channel(
            f"unix://{socket.absolute()}",
            options=[
                # Without this, gRPC's C core (Python, Ruby, PHP) sends the socket's percent-encoded
                # path as HTTP/2's `:authority`. The server's HTTP/2 library holds that for no valid
                # authority and resets each call with PROTOCOL_ERROR.
                ("grpc.default_authority", "localhost"),
            ],
        )
        self.instances = instance_pb2_grpc.InstanceServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)

    def left(self) -> float:
        """Seconds until the deadline."""
        return max(0.0, self.deadline - time.monotonic())

    def services(self) -> list[str]:
        """The services that the server says it has."""
        # The package knows reflection as v1alpha only; v1 is the same messages at another address.
        reflect = self.channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        request = reflection_pb2.ServerReflectionRequest(list_services="*")
        (response,) = reflect(iter([request]), timeout=UNARY_SECONDS)
        return sorted(service.name for service in response.list_services_response.service)

    def serving(self, service: str = "") -> str:
        """The health of a service, of `instance/<name>`, or of all."""
        request = health_pb2.HealthCheckRequest(service=service)
        response = self.health.Check(request, timeout=UNARY_SECONDS)
        return health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)

    def list(self) -> Iterator[instance_pb2.Instance]:
        """All instances, page by page."""
        token = ""
        while True:
            request = instance_pb2.ListInstancesRequest(page_size=PAGE_SIZE, page_token=token)
            page = self.instances.ListInstances(request, timeout=UNARY_SECONDS)
            yield from page.instances
            token = page.next_page_token
            if not token:
                return

    def watch(self, name: str) -> Iterator[instance_pb2.Instance | None]:
        """The instance now, then each change of it; None when it is gone. Ends at the deadline.

        A stream that breaks is taken up after the last revision seen, so nothing is missed. That
        happens, for one, when the supervisor is upgraded while the gateways run on.
        """
        after = None
        while True:
            request = instance_pb2.WatchInstancesRequest(names=[name], after_revision=after)
            try:
                # wait_for_ready: while nobody listens on the socket, wait, up to the deadline.
                for item in self.instances.WatchInstances(
                    request, timeout=self.left(), wait_for_ready=True
                ):
                    after = item.revision
                    match item.WhichOneof("change"):
                        case "snapshot":
                            yield next(iter(item.snapshot.instances), None)
                        case "changed":
                            yield item.changed
                        case "deleted":
                            yield None
                        case _:  # A bookmark: only the revision is news.
                            pass
            except grpc.RpcError as error:
                if reason(error) == reason_pb2.REASON_REVISION_COMPACTED:
                    after = None  # Too long away: begin anew with a snapshot.
                elif error.code() != grpc.StatusCode.UNAVAILABLE:
                    raise
            time.sleep(RESUME_SECONDS)

    def restart(self, name: str) -> None:
        """Restarts an instance and prints its phases until it is ready."""
        watch = self.watch(name)  # Before the restart, so that no phase is missed.
        before = next(watch)
        if before is None:
            raise Failed(f"there is no instance {name}")
        request = instance_pb2.RestartInstanceRequest(name=name, request_id=str(uuid.uuid4()))
        asked = self.instances.RestartInstance(request, timeout=UNARY_SECONDS)

        seen = None
        for instance in watch:
            if instance is None:
                raise Failed(f"{name} was deleted while it restarted")
            status = instance.status
            now = (status.phase, status.incarnation)
            if now != seen:
                seen = now
                print(f"  {phase(status):10} incarnation {status.incarnation}  {status.reason}")
            if status.revision < asked.revision:
                continue  # From before the wish.
            if status.phase == instance_pb2.PHASE_FAILED:
                raise Failed(f"{name} cannot run: {status.reason} {status.hint}".rstrip())
            new = status.incarnation > before.status.incarnation
            if new and status.phase == instance_pb2.PHASE_READY:
                return

    def wait_serving(self, name: str) -> None:
        """Returns once the health service says that the instance serves."""
        request = health_pb2.HealthCheckRequest(service=f"instance/{name}")
        for response in self.health.Watch(request, timeout=self.left()):
            if response.status == health_pb2.HealthCheckResponse.SERVING:
                return
        raise Failed(f"the health stream of {name} ended before it served")


def phase(status: instance_pb2.InstanceStatus) -> str:
    """READY for PHASE_READY."""
    return instance_pb2.Phase.Name(status.phase).removeprefix("PHASE_")


def reason(error: grpc.RpcError) -> int:
    """Why the supervisor refused; REASON_UNSPECIFIED if it was not the supervisor that did."""
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == "openclaw.supervisor":
            # A newer supervisor may have reasons that this client does not know.
            return reason_pb2.Reason.DESCRIPTOR.values_by_name.get(
                f"REASON_{info.reason}", reason_pb2.Reason.DESCRIPTOR.values_by_number[0]
            ).number
    return reason_pb2.REASON_UNSPECIFIED


def show(fleet: Fleet) -> None:
    """Prints services, health and instances."""
    services = fleet.services()
    print("services:", *services, sep="\n  ")
    if missing := NEEDED_SERVICES.difference(services):
        raise Failed(f"the server has no {', '.join(sorted(missing))}")

    overall = fleet.serving()
    print(f"health: {overall}")
    if overall != "SERVING":
        raise Failed("the supervisor does not serve")

    print("instances:")
    for instance in fleet.list():
        status = instance.status
        health = fleet.serving(f"instance/{instance.name}")
        print(f"  {instance.name:12} {phase(status):10} {status.ports.gateway:5}  {health}")


def main() -> int:
    """Parses the command line, does what it asks and returns the exit status."""
    parser = argparse.ArgumentParser(description="Example client of openclaw-supervisor.")
    parser.add_argument("--socket", type=Path, required=True, help="the supervisor's Unix socket")
    parser.add_argument("--restart", metavar="NAME", help="restart this instance and watch it")
    parser.add_argument(
        "--timeout", type=float, default=120, metavar="S", help="for all of it (default: %(default)s)"
    )
    arguments = parser.parse_args()
    fleet = Fleet(arguments.socket, time.monotonic() + arguments.timeout)
    try:
        show(fleet)
        if arguments.restart:
            print(f"restarting {arguments.restart}:")
            fleet.restart(arguments.restart)
            fleet.wait_serving(arguments.restart)
            print(f"{arguments.restart} serves again")
    except Failed as failure:
        print(f"fleet_client: {failure}", file=sys.stderr)
        return 1
    except grpc.RpcError as error:
        name = reason_pb2.Reason.Name(reason(error)).removeprefix("REASON_")
        why = "" if name == "UNSPECIFIED" else f" [{name}]"
        print(f"fleet_client: {error.code().name}{why}: {error.details()}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
