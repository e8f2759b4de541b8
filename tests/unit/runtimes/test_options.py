"""What one replica asks Slurm for."""

from llmop.domain.deployment import SlurmOptions, Template
from llmop.domain.profile import Profile
from llmop.runtimes import options

A100 = Profile(
    name="a100",
    partition="gpu",
    account="proj",
    qos="normal",
    gres="gpu:a100",
    constraint="ib",
    cpus_per_gpu=8,
    memory_mib_per_gpu=65536,
    time_limit_s=86400,
    time_min_s=3601,
)


def template(**values: object) -> Template:
    return Template(model_uri="", model_name="m", runtime="r", **values)  # type: ignore[arg-type]


def test_a_profile_says_all_and_amounts_count_per_gpu() -> None:
    assert (
        ("partition", "gpu"),
        ("account", "proj"),
        ("qos", "normal"),
        ("nodes", "1"),
        ("ntasks", "1"),
        ("gres", "gpu:a100:2"),
        ("cpus-per-task", "16"),
        ("mem", "131072M"),
        ("time", "1440"),
        ("time-min", "61"),
        ("constraint", "ib"),
    ) == options.options(template(gpus=2, profile="a100"), A100)


def test_a_deployment_stands_over_its_profile() -> None:
    own = SlurmOptions(
        partition="big,small",
        account="other",
        qos="high",
        gres="gpu:h100",
        time_limit_s=59,
        time_min_s=1,
        constraint="a&b",
        reservation="r",
        exclude=("n1", "n[3-4]"),
        nodelist=("n9",),
        extra_args=("--exclusive", "--licenses=a:1,b:2=3"),
    )

    assert (
        ("partition", "big,small"),
        ("account", "other"),
        ("qos", "high"),
        ("nodes", "1"),
        ("ntasks", "1"),
        ("gres", "gpu:h100:4"),
        ("cpus-per-task", "3"),
        ("mem", "100M"),
        ("time", "1"),
        ("time-min", "1"),
        ("constraint", "a&b"),
        ("reservation", "r"),
        ("exclude", "n1,n[3-4]"),
        ("nodelist", "n9"),
        ("exclusive", ""),
        ("licenses", "a:1,b:2=3"),
    ) == options.options(template(gpus=4, cpus=3, memory_mib=100, slurm=own), A100)


def test_what_nobody_sets_is_left_to_the_site() -> None:
    assert (("nodes", "1"), ("ntasks", "1")) == options.options(template(), Profile(name=""))
    assert 0 == options.time_limit_s(template(), Profile(name=""))


def test_without_gpus_amounts_are_those_of_the_profile() -> None:
    cpu = Profile(name="cpu", cpus_per_gpu=2, memory_mib_per_gpu=512)

    assert {"cpus-per-task": "2", "mem": "512M"}.items() <= dict(options.options(template(), cpu)).items()


def test_a_count_in_gres_stays_as_it_is() -> None:
    found = dict(options.options(template(gpus=2, slurm=SlurmOptions(gres="gpu:2")), Profile(name="")))

    assert "gpu:2" == found["gres"]
