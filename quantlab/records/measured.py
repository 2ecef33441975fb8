"""Define the parts of the measure stage's record: memory samples, timings, device conditions, ceiling.

Everything that was not measured is None; a reason stands beside it.
"""

from __future__ import annotations

from quantlab.frozen import Frozen


class Median(Frozen):
    """The median of repeated measurements with an interval from their order statistics.

    [low, high] are the k-th smallest and k-th largest sample. That interval holds the true median with
    probability 1 - 2 P[Binomial(n, 1/2) < k], whatever the distribution. k is the largest for which this is
    at least 0.95; where the sample is too small for that (below 6), the interval is the whole range."""

    value: float
    low: float
    high: float
    coverage: float
    """Probability that the interval holds the true median: 0.9375 for 5 repeats, 0.75 for 3."""
    n: int


class GpuUse(Frozen):
    """Memory of one GPU as the driver sees it (NVML on NVIDIA, AMD SMI on ROCm), in bytes."""

    uuid: str
    name: str
    tree_bytes: int | None
    """Memory of the measured process tree on it; None where the driver does not tell it (some containers and
    systems)."""
    used_bytes: int | None
    """Memory in use on the whole device, whoever holds it; None where the driver does not tell it."""


class Sample(Frozen):
    """One look at the measured process tree from another process, or the highest values of several looks."""

    step: str
    """What the measured process was doing."""
    seconds: float
    """Since the sampling began; of several looks, the time of the highest."""
    tree_rss_bytes: int
    """Resident memory of the processes added up; pages that they share count more than once."""
    tree_pss_bytes: int | None
    """Proportional set size: shared pages divided by how many processes map them; None where the system has
    none."""
    tree_swap_bytes: int | None = None
    """The tree's share of what is swapped out (SwapPss), which no resident size has in it; None where the
    system tells none."""
    gpus: tuple[GpuUse, ...] = ()
    """The GPUs that the measurement uses, matched by UUID."""
    tree_vram_bytes: int | None = None
    """The tree's memory over its GPUs at one moment; of several looks the highest such sum."""
    used_vram_bytes: int | None = None
    """The same of all memory in use on them."""


class SampledMemory(Frozen):
    """Memory sampled by a separate process that survives the measured one.

    Sampled while the checkpoint loads and runs each workload once, with nothing else of ours running; the
    timed repeats after it are only glanced at once a second, so that the sampling does not slow them."""

    asked_interval_seconds: float
    interval_seconds: float | None
    """Median interval really reached between two looks; None with fewer than two."""
    pss_interval_seconds: float | None
    """The same for PSS, which costs more to read: at most a tenth of the time is spent on it."""
    samples: int
    before: Sample | None = None
    """Before the measured process began: only the whole device's memory in use means something."""
    empty: Sample | None = None
    """The process with the engine's libraries imported and its device opened, nothing loaded."""
    loaded: Sample | None = None
    """After loading, before the first workload."""
    peak: Sample
    """The highest value of each quantity, each at its own moment; the step is that of the highest tree
    memory."""
    steps: tuple[Sample, ...] = ()
    """The highest values of each step, in order."""
    last: Sample
    """The last look: of a process that was killed, what it held shortly before."""

    @property
    def last_words(self) -> str:
        """Of a process that died: what it held when it was last looked at, and what it did then."""
        held = self.last.tree_pss_bytes if self.last.tree_pss_bytes is not None else self.last.tree_rss_bytes
        on_gpus = [f"{gpu.tree_bytes / 1e9:.2f} GB of {gpu.name}" for gpu in self.last.gpus if gpu.tree_bytes]
        parts = [f"{held / 1e9:.2f} GB of memory", *on_gpus]
        return f"it last held {' and '.join(parts)}, in step `{self.last.step}`"

    @property
    def peak_above_empty_bytes(self) -> int | None:
        """Peak of the tree above the empty engine process: PSS, else RSS."""
        if self.empty is None:
            return None
        if self.peak.tree_pss_bytes is not None and self.empty.tree_pss_bytes is not None:
            return self.peak.tree_pss_bytes - self.empty.tree_pss_bytes
        return self.peak.tree_rss_bytes - self.empty.tree_rss_bytes

    @property
    def peak_vram_bytes(self) -> int | None:
        """Peak of the tree over its GPUs, as the driver sees it; None without a GPU or where the driver does
        not tell."""
        parts = [gpu.tree_bytes for gpu in self.peak.gpus]
        if not parts or None in parts:
            return None
        # of several GPUs each one's peak has its own moment, and their sum was never held
        return parts[0] if len(parts) == 1 else self.peak.tree_vram_bytes

    @property
    def peak_vram_above_empty_bytes(self) -> int | None:
        """The same above the empty engine process, whose device context alone takes hundreds of megabytes.

        None where the empty process had opened no GPU: its context would count as the model's.
        """
        empty = [gpu.tree_bytes for gpu in self.empty.gpus if gpu.tree_bytes] if self.empty else []
        if self.peak_vram_bytes is None or not empty or len(empty) < len(self.peak.gpus):
            return None
        return self.peak_vram_bytes - sum(empty)

    @property
    def device_change_bytes(self) -> int | None:
        """Highest memory in use on the GPUs less what was in use before the process began; None without a
        GPU."""
        if self.before is None or not self.before.gpus:
            return None
        before = [gpu.used_bytes for gpu in self.before.gpus]
        peak = self.peak.gpus[0].used_bytes if len(self.peak.gpus) == 1 else self.peak.used_vram_bytes
        known = [size for size in before if size is not None]
        return None if peak is None or len(known) < len(before) else peak - sum(known)


class GpuCondition(Frozen):
    """Clocks, power and heat of a GPU at one moment, by NVML; None where the driver does not tell."""

    uuid: str
    name: str
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    power_limit_watts: float | None = None
    power_watts: float | None = None
    temperature_celsius: int | None = None
    throttle_reasons: tuple[str, ...] = ()
    """Why the clocks are lower than they could be, idling left out."""


class Conditions(Frozen):
    """The device's condition at one moment."""

    cpu_mhz: float | None = None
    """Mean over the processors that this process may use, as the kernel shows it; None where it shows
    none."""
    load_average: float | None = None
    """Of the last minute, before the measurement: what else ran on the machine."""
    gpus: tuple[GpuCondition, ...] = ()


class Bandwidth(Frozen):
    """Memory bandwidth of the device in bytes per second."""

    measured_bytes_per_second: float
    """Of a copy, bytes read and bytes written both counted: the best of several, with the threads that the
    engine has."""
    copied_bytes: int
    """Size of the block that was copied; several times the last cache's."""
    threads: int | None
    quoted_bytes_per_second: float | None = None
    """The data sheet's figure where the catalogue has the device."""
    quoted_source: str | None = None
