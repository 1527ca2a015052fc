"""A network link that loses, duplicates and reorders real packets at random.

Two network namespaces each have one end of the link as a TUN device. This module reads
packets at one end and writes them to the other, or drops them. So TCP itself detects
the loss and retransmits. It needs root and the kernel alone, without netem.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import random
import select
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import TypeVar

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK = 0x8913, 0x8914, 0x8916, 0x891C
IFF_UP = 0x1
DEVICE = "wire0"
NEAR, FAR, MASK = "10.213.7.1", "10.213.7.2", "255.255.255.0"
CHUNK = 65536
#: Longest packet that is a bare acknowledgement or less.
BARE = 80


class Refused(OSError):
    """The kernel or the user's rights do not allow such a link."""


class Side:
    """A network namespace with an end of the link, in which a thread lives."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._thread = ThreadPoolExecutor(1)
        try:
            self.end: int = self.within(lambda: _end(address))
        except OSError as error:
            self._thread.shutdown()
            raise Refused(str(error)) from error

    def within(self, work: Callable[[], T]) -> T:
        """Run a call inside; its processes and sockets stay there."""
        return self._thread.submit(work).result()

    def close(self) -> None:
        """End the thread, and with it the namespace."""
        self._thread.shutdown()
        os.close(self.end)


class Wire:
    """Carries packets between two sides.

    ``loss``, ``doubling`` and ``reordering`` are shares of the packets, from 0 to 1; a
    reordered one comes after the next. ``counts`` has ``carried``, ``lost``,
    ``doubled`` and ``reordered``; ``lost data`` counts the lost packets with data.
    """

    def __init__(self, near: Side, far: Side, seed: int) -> None:
        self.near, self.far = near, far
        self.loss = self.doubling = self.reordering = 0.0
        self.counts: Counter[str] = Counter()
        self._chance = random.Random(seed)  # noqa: S311  # no secret
        self._others = {near.end: far.end, far.end: near.end}
        self._waiting: dict[int, bytes] = {}
        self._asked, self._ends = os.pipe()
        self._pump = threading.Thread(target=self._carry, name="wire", daemon=True)
        self._pump.start()

    def close(self) -> None:
        """Stop carrying packets."""
        os.close(self._ends)
        self._pump.join()
        os.close(self._asked)

    def _carry(self) -> None:
        while True:
            ready, _, _ = select.select([*self._others, self._asked], [], [])
            if self._asked in ready:
                return
            for end in ready:
                packet = os.read(end, CHUNK)
                if packet[0] >> 4 == 4:  # the kernels also look for routers of IPv6
                    self._pass(packet, self._others[end])

    def _pass(self, packet: bytes, to: int) -> None:
        if self._happens(self.loss, "lost"):
            self.counts["lost data"] += len(packet) > BARE
            return
        if to not in self._waiting and self._happens(self.reordering, "reordered"):
            self._waiting[to] = packet
            return
        self._give(packet, to)
        if self._happens(self.doubling, "doubled"):
            self._give(packet, to)
        if to in self._waiting:
            self._give(self._waiting.pop(to), to)

    def _happens(self, share: float, what: str) -> bool:
        happens = self._chance.random() < share
        self.counts[what] += happens
        return happens

    def _give(self, packet: bytes, to: int) -> None:
        self.counts["carried"] += 1
        with suppress(OSError):  # a full device loses it too
            os.write(to, packet)


@contextmanager
def wire(seed: int) -> Iterator[Wire]:
    """Yield a link; raise ``Refused`` where it cannot exist."""
    with ExitStack() as stack:
        near = Side(NEAR)
        stack.callback(near.close)
        far = Side(FAR)
        stack.callback(far.close)
        made = Wire(near, far, seed)
        stack.callback(made.close)
        yield made


def listener(side: Side) -> socket.socket:
    """Return a socket that listens on a side."""
    return side.within(lambda: socket.create_server((side.address, 0)))


def _end(address: str) -> int:
    """Move this thread to its own namespace; return the end of a link there."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, f"unshare: {os.strerror(number)}")
    end = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(end, TUNSETIFF, _about(DEVICE, IFF_TUN | IFF_NO_PI))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for request, text in (SIOCSIFADDR, address), (SIOCSIFNETMASK, MASK):
            name = DEVICE.encode()
            numbers = socket.AF_INET, socket.inet_aton(text)
            fcntl.ioctl(control, request, struct.pack("16sH2x4s16x", name, *numbers))
        for device in ("lo", DEVICE):
            known = fcntl.ioctl(control, SIOCGIFFLAGS, _about(device, 0))
            up = struct.unpack_from("16xH", known)[0] | IFF_UP
            fcntl.ioctl(control, SIOCSIFFLAGS, _about(device, up))
    return end


def _about(device: str, flags: int) -> bytes:
    """Return the kernel's ``struct ifreq`` with flags."""
    return struct.pack("16sH22x", device.encode(), flags)
