"""Alarm, best rate and energy: the three that look at the machine and at the past."""

import json
import sys
import types

import pytest
import torch

from minigpt import energy, machine
from minigpt.alarm import ENOUGH, Alarm
from minigpt.energy import make_meter

CPU = torch.device("cpu")


def rows(n, **changes):
    """A loss that falls with a little noise."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(n, generator=generator).tolist()
    return [{"step": i + 1, "loss": 5 - i / n + 0.05 * noise[i], "gradient_norm": 1 + 0.1 * noise[i]} | changes
            for i in range(n)]


def test_a_quiet_run_rouses_no_alarm():
    alarm = Alarm()
    assert not [spike for row in rows(600) for spike in alarm.hear(row)]


@pytest.mark.parametrize(("name", "value"), [("loss", 7.0), ("gradient_norm", 10.0)])
def test_a_value_far_above_the_past_rouses_it_once(name, value):
    alarm, past = Alarm(), rows(101)
    past[100][name] = value
    told = [spike for row in past for spike in alarm.hear(row)]
    assert [(spike.step, spike.name) for spike in told] == [(101, name)]
    assert f"step 101: {name} {value:.4g}" in str(told[0])


def test_a_value_far_below_the_past_is_good_news():
    assert not Alarm(rows(100)).hear({"step": 101, "loss": 0.1, "gradient_norm": 0.01})


def test_it_says_nothing_before_it_has_seen_enough():
    assert not Alarm(rows(ENOUGH - 1)).hear({"step": 1, "loss": 99.0, "gradient_norm": 99.0})
    assert len(Alarm(rows(ENOUGH)).hear({"step": 1, "loss": 99.0, "gradient_norm": 99.0})) == 2


def test_an_alarm_that_was_told_the_past_hears_what_the_first_one_hears():
    whole, past = Alarm(), rows(300)
    for row in past:
        whole.hear(row)
    last = {"step": 301, "loss": 6.0, "gradient_norm": 9.0}
    assert Alarm(past).hear(last) == whole.hear(last)


def test_a_rate_is_measured_once_a_run_and_its_origin_noted(tmp_path, monkeypatch):
    first = machine.note_machine(CPU, "32-true", tmp_path, make_meter(CPU, 65.0), "kept")
    notes = json.loads((tmp_path / "machine.json").read_text())
    assert notes["peak"]["origin"] == "measured with a matrix product" and "65 W" in notes["energy"]
    monkeypatch.setattr(machine, "measure", lambda *_: pytest.fail("measured again"))
    assert machine.note_machine(CPU, "32-true", tmp_path, None, "kept") == first


def test_the_measured_rate_is_one_that_a_processor_can_have():
    assert 1e8 < machine.measure(CPU, torch.float32, seconds=0.05) < 1e14


def processor(folder, number, joules):
    place = folder / f"intel-rapl:{number}"
    place.mkdir(parents=True, exist_ok=True)
    (place / "max_energy_range_uj").write_text("1000000000")
    (place / "energy_uj").write_text(str(int(joules * 1e6)))


def test_counters_of_all_processors_add_up_and_may_begin_again(tmp_path):
    processor(tmp_path, 0, 990)
    processor(tmp_path, 1, 10)
    processor(tmp_path / "inside", 0, 0)
    (tmp_path / "intel-rapl:0:0").mkdir()  # a part of a processor: counted in it
    meter = make_meter(CPU, powercap=tmp_path)
    assert "RAPL" in meter.origin and not meter.one_a_process
    processor(tmp_path, 0, 5)  # full at 1000 J
    processor(tmp_path, 1, 12)
    assert meter.lap() == pytest.approx(15 + 2, abs=1e-5)
    assert meter.lap() == 0


@pytest.mark.parametrize(("watts", "origin", "power"), [
    (50.0, "declared, 50 W a process", 50), (0.0, "declared, 3.5 W a thread", 3.5)])
def test_where_nothing_is_measured_the_watts_are_declared(tmp_path, monkeypatch, watts, origin, power):
    clock = iter([100.0, 102.0])
    monkeypatch.setattr(energy.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    meter = make_meter(CPU, watts, powercap=tmp_path)
    assert meter.origin == origin and meter.lap() == pytest.approx(2 * power)


def test_a_gpu_tells_its_own_energy_through_nvml(monkeypatch):
    """The library's calls and units (millijoules), without a GPU."""
    counts = iter([0, 5_000, 12_500])
    library = types.SimpleNamespace(
        NVMLError=RuntimeError, nvmlInit=lambda: None, nvmlDeviceGetHandleByUUID=lambda name: name,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(counts))
    monkeypatch.setitem(sys.modules, "pynvml", library)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: types.SimpleNamespace(uuid="1"))
    meter = make_meter(torch.device("cuda"))
    assert "NVML" in meter.origin and meter.lap() == 7.5


def test_a_gpu_that_does_not_tell_has_no_energy_until_watts_are_declared(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert make_meter(torch.device("cuda")) is None
    assert make_meter(torch.device("cuda"), 300.0).origin == "declared, 300 W a process"
