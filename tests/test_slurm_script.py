"""The job scripts that `minigpt slurm` writes: what they ask of Slurm, and when they come back."""

import dataclasses
import os
import shutil
import stat
import subprocess
import sys

import pytest
from test_cli import call

from minigpt import cli, recipes
from minigpt.cluster import slurm
from minigpt.cluster.slurm import Job, overrides, submit, vendor_of, write_shards_array, write_training

ODD = "it's 100% of $HOME, #1 & `more`  ü"
SHELL = shutil.which("bash")

pytestmark = pytest.mark.skipif(SHELL is None, reason="no bash on this machine")


@pytest.fixture
def config():
    recipe = recipes.llama_1b()
    settings = dataclasses.replace(recipe.train, steps=3000, compile=True, wandb="it's a")
    return dataclasses.replace(recipe, train=settings)


def sbatch_lines(script):
    return [line.removeprefix("#SBATCH ") for line in script.read_text().splitlines() if line.startswith("#SBATCH")]


def test_the_words_of_the_command_line_bring_every_changed_field_back(config):
    base = recipes.llama_1b()
    config = dataclasses.replace(
        config, name="other", model=dataclasses.replace(config.model, tied=True, rotary_fraction=0.25),
        data=dataclasses.replace(config.data, source="-x y/*.txt", documents="pack"),
        train=dataclasses.replace(config.train, learning_rate=5e-5, schedule="wsd"))
    words = overrides(base, config)
    assert len(words) == 10 and cli.train_settings(base, ["llama_1b", *words])[0] == config
    back = overrides(config, base)
    assert "--model.no-tied" in back and cli.train_settings(config, ["llama_1b", *back])[0] == base
    assert overrides(base, base) == []


def test_the_script_asks_for_what_the_job_says(config, tmp_path):
    job = Job(nodes=4, gpu="h100", partition="long", account="course", time="12:00:00", warning_seconds=120)
    assert set(sbatch_lines(write_training(config, "llama_1b", tmp_path / "run", job))) == {
        '--job-name="llama_1b"', f'--comment="minigpt {tmp_path}/run"', "--partition=long", "--account=course",
        "--nodes=4", "--ntasks-per-node=8", "--gpus-per-node=h100:8", "--cpus-per-task=8", "--mem=0",
        "--time=12:00:00", "--signal=USR1@120", "--requeue", f'--output="{tmp_path}/run/slurm/train.out"',
        "--open-mode=append"}


def test_what_is_not_given_is_left_to_the_cluster_and_said(config, tmp_path):
    script = write_training(config, "llama_1b", tmp_path, Job())
    assert not [line for line in sbatch_lines(script) if "partition" in line or "account" in line]
    assert "To choose: #SBATCH --partition=NAME" in script.read_text()
    assert "--gpus-per-node=8" in sbatch_lines(script)


def test_every_line_for_sbatch_stands_under_a_comment_that_explains_it(config, tmp_path):
    for script in (write_training(config, "llama_1b", tmp_path, Job(gpu="mi300x", partition="a", account="b")),
                   write_shards_array(config, "llama_1b", tmp_path, Job(), 4)):
        lines = script.read_text().splitlines()
        first_command = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
        for number, line in enumerate(lines):
            if line.startswith("#SBATCH"):
                assert number < first_command and lines[number - 1].startswith("#"), line
        assert max(len(line.replace(str(tmp_path), "RUN").replace(sys.prefix, "HOME")) for line in lines) <= 120


@pytest.mark.parametrize(("gpu", "vendor"), [("h100", "nvidia"), ("", "nvidia"), ("MI300X", "amd"), ("mi250x", "amd"),
                                             ("amd_instinct_mi250", "amd"), ("a100-sxm4-80gb", "nvidia")])
def test_the_name_of_a_gpu_says_who_made_it(gpu, vendor):
    assert vendor_of(gpu) == vendor


def test_amd_nvidia_and_cpu_scripts_differ_where_they_must(config, tmp_path):
    text = {vendor: write_training(config, "llama_1b", tmp_path, Job(vendor=vendor)).read_text()
            for vendor in ("nvidia", "amd", "cpu")}
    assert "ROCR_VISIBLE_DEVICES" in text["amd"] and "RCCL" in text["amd"]
    assert "ROCR" not in text["nvidia"] and "NCCL_DEBUG" in text["nvidia"] and "NCCL" not in text["cpu"]
    assert "--gpus-per-node" not in text["cpu"] and "--ntasks-per-node=8" in text["cpu"]
    assert "--device cpu" in text["cpu"] and all("--device cuda" in text[vendor] for vendor in ("nvidia", "amd"))


@pytest.mark.parametrize("name", ["run", ODD])
@pytest.mark.parametrize("job", [Job(), Job(vendor="cpu", local="none"), Job(gpu="mi300x", local="/a disk's")],
                         ids=["nvidia", "cpu", "amd"])
def test_scripts_are_good_shell(config, tmp_path, name, job):
    scripts = [write_training(config, "llama_1b", tmp_path / name, job),
               write_shards_array(config, "llama_1b", tmp_path / name, job, 8)]
    for script in scripts:
        assert script.stat().st_mode & stat.S_IXUSR
        subprocess.run([SHELL, "-n", script], check=True)
    if shutil.which("shellcheck") and name == "run":
        done = subprocess.run(["shellcheck", "--exclude=SC2089,SC2090", *scripts], capture_output=True, text=True)
        assert not done.stdout  # those two fear for a string with quotes in it that is no command


@pytest.mark.parametrize("letter", ['"', "\\", "\n"])
def test_a_folder_that_sbatch_cannot_read_is_refused(config, tmp_path, letter):
    with pytest.raises(ValueError, match="which sbatch does not read; name another folder"):
        write_training(config, "llama_1b", tmp_path / f"a{letter}b", Job())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("fields", "sentence"), [
    ({"nodes": 0}, "nodes is 0 but must be at least 1"), ({"time": "tomorrow"}, "time is 'tomorrow', which is no time"),
    ({"time": "00:04:00"}, "time 00:04:00 is over before the warning that comes 300 seconds"),
    ({"slow": 1.5}, "choose it between 0 and 1"), ({"faults": -1}, "faults is -1 but counts"),
    ({"partition": "a b"}, "partition is 'a b', which is no name"), ({"local": "tmp"}, "begins with /"),
    ({"gpu": "mi300x", "vendor": "nvidia"}, "the GPU mi300x is not one of the vendor nvidia")])
def test_a_job_that_cannot_be_is_one_sentence(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        Job(**fields)


# ---- What the script does, with programs in Slurm's place that write down what they are called with. ----

SRUN = """
word=${!#}
echo "srun $word" >> "$TOLD"
case $word in
  check) for node in $UNHEALTHY; do echo "$node" >> "$stay/unhealthy"; done; exit "$HEALTH" ;;
  stage) exit "$STAGE" ;;
  train)
    worst=0 rank=0
    for code in $CODES; do
      [[ $code == lost ]] && code=137 || echo "$code" > "$stay/exit-$rank"
      rank=$((rank + 1)); ((code > worst)) && worst=$code
    done
    exit $worst ;;
esac
"""
PROGRAMS = {
    "srun": SRUN, "minigpt": 'echo "minigpt $1" >> "$TOLD"',
    "sbatch": 'echo "stays known to sbatch: ${SLURM_RESTART_COUNT:-none}" >> "$TOLD"; echo "sbatch $*" >> "$TOLD"',
    "squeue": 'echo "$STATE"',
    "scontrol": 'case "$*" in *hostnames*) printf "a1\\na2\\n" ;; *node*) echo "NodeName=a1 NodeAddr=10.0.0.1 X=1" ;;'
                ' *) echo "scontrol $*" >> "$TOLD"; exit "${REFUSED:-0}" ;; esac'}


@pytest.fixture
def play(config, tmp_path, monkeypatch):
    """Call the script once; its exit status, its last sentence, and what it called."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in PROGRAMS.items():
        (programs / name).write_text(f"#!{SHELL}\n{text}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    script = write_training(config, "llama_1b", tmp_path / ODD, Job(nodes=2, faults=2))

    def play(codes="0 0", **changes):
        told = tmp_path / "told"
        told.write_text("")
        environment = {"PATH": f"{programs}:/usr/bin:/bin", "TOLD": str(told), "CODES": codes, "HEALTH": "0",
                       "STAGE": "0", "UNHEALTHY": "", "STATE": "RUNNING None", "SLURM_JOB_ID": "7",
                       "SLURM_JOB_NODELIST": "a[1-2]", "SLURM_NNODES": "2", "SLURM_NTASKS": "16"} | changes
        done = subprocess.run([SHELL, script], env=environment, capture_output=True, text=True, timeout=20)
        assert not done.stderr, done.stderr
        return done.returncode, done.stdout.strip().splitlines()[-1][20:], told.read_text().splitlines()

    return play


DONE = ["srun check", "srun stage", "srun train", "srun unstage", "minigpt evaluate", "minigpt report"]


def test_a_run_that_ends_gets_its_report_and_does_not_come_back(play):
    status, said, told = play()
    assert status == 0 and told == DONE and said.startswith("The run is finished; its report card is")


@pytest.mark.parametrize(("codes", "why"), [
    ("75 75", "it was told to stop, and saved"), ("74 74", "the disk is full or fails (fault 1 of 2"),
    ("70 lost", "a rank ended with exit code 137 (fault 1 of 2"), ("74 lost", "the disk is full or fails (fault 1"),
    ("70 70", "a rank ended with exit code 70 (fault 1"), ("75 lost", "a rank ended with exit code 137 (fault 1")])
def test_the_job_comes_back_after(play, codes, why):
    status, said, told = play(codes)
    assert status == 0 and told[-1] == "scontrol requeue 7" and said.startswith(f"The job comes back: {why}")


@pytest.mark.parametrize("codes", ["1 1", "1 70", "1 lost", "74 1"])
def test_a_sentence_for_a_person_keeps_the_job_away_whatever_the_others_died_of(play, codes):
    status, said, told = play(codes)
    assert status == 1 and told == DONE[:3] and said.startswith("The job stays away: a rank asks for you")


def test_faults_without_progress_have_a_limit_and_progress_lifts_it(play, tmp_path):
    assert "(fault 1 of 2" in play("70 lost")[1] and "(fault 2 of 2" in play("70 lost")[1]
    status, said, told = play("70 lost")
    assert status == 1 and said.endswith("and that is fault 3 without a new checkpoint.") and told == DONE[:3]
    (tmp_path / ODD / "checkpoints" / "step-000010").mkdir(parents=True)
    (tmp_path / ODD / "checkpoints" / "step-000020.partial").mkdir()
    assert "(fault 1 of 2" in play("70 lost")[1] and "(fault 2 of 2" in play("70 lost")[1]
    assert play("75 75")[0] == 0
    assert play("70 lost")[0] == 1
    assert "(fault 1 of 2" in play("70 lost", SLURM_JOB_ID="8")[1]


def test_the_newest_checkpoint_is_the_one_of_the_highest_step(play, tmp_path):
    for step in ("999999", "1000000"):
        (tmp_path / ODD / "checkpoints" / f"step-{step}").mkdir(parents=True)
    play("70 lost")
    assert (tmp_path / ODD / "slurm" / "faults.7").read_text() == "step-1000000\n"


@pytest.mark.parametrize("state", ["COMPLETING None", "CANCELLED None"])
@pytest.mark.parametrize("codes", ["75 75", "lost lost"])
def test_a_cancelled_job_stays_away(play, state, codes):
    status, _, told = play(codes, STATE=state)
    assert status == 1 and told == DONE[:3]


def test_a_job_whose_time_is_over_comes_back(play):
    assert play("lost lost", STATE="COMPLETING TimeLimit")[2][-1] == "scontrol requeue 7"


def test_an_unhealthy_machine_is_left_out_by_a_new_job(play, tmp_path):
    status, _, told = play(HEALTH="69", UNHEALTHY="a2")
    assert status == 1 and told[0] == "srun check"
    assert told[-1] == f"sbatch --exclude=a2 {tmp_path / ODD / 'slurm' / 'train.sh'}"
    assert play(HEALTH="69", UNHEALTHY="a1", SLURM_RESTART_COUNT="1")[2][-1].startswith("sbatch --exclude=a1,a2 ")


def test_a_machine_on_which_the_check_dies_is_left_out_too(play):
    """The first rank judges it, and the worst exit code is that of the rank that died."""
    assert play(HEALTH="139", UNHEALTHY="a2")[2][-1].startswith("sbatch --exclude=a2 ")


def test_a_new_job_counts_its_stays_anew(play):
    told = play(HEALTH="69", UNHEALTHY="a2", SLURM_RESTART_COUNT="3")[2]
    assert "stays known to sbatch: none" in told


def test_if_most_machines_are_unhealthy_a_person_must_look(play):
    status, said, told = play(HEALTH="69", UNHEALTHY="a1 a2")
    assert status == 1 and told == ["srun check"] and "more than half of the machines" in said


def test_a_check_that_breaks_is_a_fault_and_damaged_shards_are_for_a_person(play):
    assert play(HEALTH="137")[2] == ["srun check", "scontrol requeue 7"]
    for number in range(4):  # a signal is no fault
        _, said, told = play(STAGE="143")
        assert told[-1] == "scontrol requeue 7" and "it was told to stop before the training began" in said, number
    _, said, told = play(STAGE="1")
    assert told == ["srun check", "srun stage"] and "the shards are damaged" in said


def test_the_ranks_log_where_the_run_is_whatever_its_name(play, tmp_path):
    play()
    assert sorted(path.name for path in (tmp_path / ODD / "slurm" / "7.0").iterdir()) == ["exit-0", "exit-1"]


# ---- On the command line. ----


def test_the_script_is_written_only_for_a_run_that_could_start(monkeypatch, capsys, texts, tmp_path):
    monkeypatch.setattr(slurm, "jobs_of", lambda folder, must_know: [])
    words = ["llama_125m", "--data.source", texts, "--data.validation-share", "0.3", "--model.vocab-size", "300",
             "--model.max-seq-len", "32", "--train.batch-size", "16", "--train.accumulate", "1", "--train.steps", "20",
             "--train.warmup-steps", "2", "--folder", tmp_path / "run"]
    status, said = call(monkeypatch, capsys, "slurm", *words)
    assert status == 1 and "has no tokenizer.json and no shards" in said and not (tmp_path / "run" / "slurm").exists()
    assert call(monkeypatch, capsys, "shards", *words)[0] == 0
    status, said = call(monkeypatch, capsys, "slurm", *words, "--nodes", "3")
    assert status == 1 and "batch_size 16 cannot be shared by 24 ranks" in said and "take 16 ranks" in said
    status, said = call(monkeypatch, capsys, "slurm", *words, "--nodes", "2")
    assert status == 0 and f"sbatch {tmp_path}/run/slurm/train.sh" in said
    text = (tmp_path / "run" / "slurm" / "train.sh").read_text()
    command = text.partition("minigpt train ")[2].partition(" \\\n")[0].split()
    base = recipes.llama_125m()
    assert cli.train_settings(base, command)[0] == cli.train_settings(base, [*map(str, words[:-2])])[0]
    status, said = call(monkeypatch, capsys, "slurm", *words, "--parts", "3")
    assert status == 0 and "--array=0-2" in (tmp_path / "run" / "slurm" / "shards.sh").read_text()


def test_a_second_job_for_the_same_folder_is_refused_before_it_queues(monkeypatch, capsys, tmp_path):
    (tmp_path / "squeue").write_text(f"#!{SHELL}\necho '12 minigpt {tmp_path}/other'\n"
                                     f"echo '13_[0-7] minigpt {tmp_path}/a run'\necho '14 (null)'\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    status, said = call(monkeypatch, capsys, "slurm", "llama_1b", "--folder", tmp_path / "a run", "--submit")
    assert status == 1 and said.count("\n") == 1 and "job 13_[0-7] works in" in said
    assert not (tmp_path / "a run").exists()


def test_where_slurm_does_not_answer_a_script_is_written_and_not_sent(monkeypatch, tmp_path):
    (tmp_path / "squeue").write_text(f"#!{SHELL}\necho 'slurm_load_jobs error: no controller' >&2\nexit 1\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert slurm.jobs_of(tmp_path, must_know=False) == []
    with pytest.raises(ValueError, match=r"squeue does not answer .*no controller"):
        slurm.jobs_of(tmp_path, must_know=True)


def test_what_sbatch_does_not_take_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"no Slurm here \(sbatch is not installed\); send .*train.sh from a machine"):
        submit(tmp_path / "train.sh")
    (tmp_path / "sbatch").write_text(f"#!{SHELL}\necho 'sbatch: error: invalid partition specified: x' >&2\nexit 1\n")
    (tmp_path / "sbatch").chmod(0o755)
    with pytest.raises(ValueError, match=r"does not take .*train.sh \(invalid partition specified: x\)"):
        submit(tmp_path / "train.sh")


def test_bad_words_get_one_sentence(monkeypatch, capsys):
    assert "slurm needs a recipe" in call(monkeypatch, capsys, "slurm")[1]
    assert "there is no recipe 'x'" in call(monkeypatch, capsys, "slurm", "x")[1]
    assert "counts tasks" in call(monkeypatch, capsys, "slurm", "llama_1b", "--parts", "-1")[1]
    status, said = call(monkeypatch, capsys, "slurm", "llama_1b", "--time", "soon")
    assert status == 1 and "which is no time" in said
