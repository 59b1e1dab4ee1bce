from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from marl_stable.report.animation import write_animation
from marl_stable.types import UsageError

ENDINGS = ["gif", "webp"]


@pytest.fixture(scope="module")
def episode() -> list[np.ndarray]:
    """What mpe2 draws of simple_spread_v3, (700, 700, 3)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SDL_VIDEODRIVER", "dummy")
        from mpe2 import simple_spread_v3  # type: ignore[import-untyped]

        env = simple_spread_v3.parallel_env(render_mode="rgb_array", max_cycles=6)
        env.reset(seed=1)
        frames = []
        while env.agents:
            env.step(dict.fromkeys(env.agents, 1))
            frames.append(env.render())
        env.close()
    return frames


def squares(count: int, height: int = 40, width: int = 60) -> Iterator[np.ndarray]:
    """A square that moves, so that no two frames are equal."""
    for i in range(count):
        frame = np.full((height, width, 3), 255, np.uint8)
        frame[10:20, i : i + 10] = (200, 30, 60)
        yield frame


def read(path: Path) -> tuple[list[np.ndarray], list[int], int]:
    """Frames, milliseconds of each, and how often it is shown (0: endlessly)."""
    with Image.open(path) as image:
        frames, durations = [], []
        for frame in ImageSequence.Iterator(image):
            frames.append(np.asarray(frame.convert("RGB")))
            durations.append(frame.info["duration"])
        return frames, durations, image.info["loop"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_frames_durations_and_loop(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"episode.{ending}"
    write_animation(squares(12), path, fps=10)
    frames, durations, loop = read(path)
    assert len(frames) == 12
    assert durations == [100] * 12
    assert loop == 0
    for shown, drawn in zip(frames, squares(12), strict=True):
        assert np.abs(shown.astype(int) - drawn).max() <= (0 if ending == "gif" else 60)


def test_rounded_frame_times_do_not_add_up(tmp_path: Path) -> None:
    path = tmp_path / "episode.gif"
    write_animation(squares(30), path, fps=30)
    durations = read(path)[1]
    assert set(durations) == {30, 40}  # GIF counts in hundredths of a second
    assert sum(durations) == 1000


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_too_fast_for_browsers_is_shown_at_fifty_frames_per_second(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"episode.{ending}"
    write_animation(squares(5), path, fps=1000)
    assert read(path)[1] == [20] * 5


def test_equal_frames_become_one_that_lasts_longer(tmp_path: Path) -> None:
    path = tmp_path / "episode.gif"
    still = [frame for frame in squares(3) for _ in range(4)]
    write_animation(still, path, fps=10)
    frames, durations, _ = read(path)
    assert len(frames) == 3
    assert sum(durations) == 1200


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_real_episode_is_small_and_looks_like_itself(tmp_path: Path, ending: str, episode: list[np.ndarray]) -> None:
    path = tmp_path / f"episode.{ending}"
    write_animation(iter(episode), path, fps=10)
    frames = read(path)[0]
    assert len(frames) == len(episode) == 6
    assert frames[0].shape == (350, 350, 3)
    assert path.stat().st_size < 25_000
    for shown, drawn in zip(frames, episode, strict=True):
        shrunk = drawn.reshape(350, 2, 350, 2, 3).mean(axis=(1, 3))
        assert np.sqrt(np.square(shown - shrunk).mean()) < (0.5 if ending == "gif" else 2.0)  # of 255


@pytest.mark.parametrize(
    ("size", "shown"), [((400, 300), (400, 300)), ((401, 200), (201, 100)), ((90, 1000), (30, 334))]
)
def test_frames_longer_than_400_pixels_shrink_by_a_whole_factor(
    tmp_path: Path, size: tuple[int, int], shown: tuple[int, int]
) -> None:
    path = tmp_path / "episode.gif"
    write_animation(squares(2, *size), path, fps=10)
    assert read(path)[0][0].shape == (*shown, 3)


@pytest.mark.parametrize("ending", ENDINGS)
def test_one_frame_is_enough(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"episode.{ending}"
    write_animation(squares(1), path, fps=10)
    with Image.open(path) as image:
        assert image.size == (60, 40)


def test_the_folder_is_created_and_an_upper_case_ending_is_known(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "EPISODE.GIF"
    write_animation(squares(2), path, fps=10)
    assert [p.name for p in path.parent.iterdir()] == ["EPISODE.GIF"]


def test_an_old_animation_stays_whole_where_drawing_fails(tmp_path: Path) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield from squares(3)
        raise RuntimeError("the environment crashed")

    path = tmp_path / "episode.gif"
    write_animation(squares(2), path, fps=10)
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="crashed"):
        write_animation(broken(), path, fps=10)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["episode.avi", "episode", "gif"])
def test_another_ending_is_refused_before_anything_is_drawn(tmp_path: Path, name: str) -> None:
    def never() -> Iterator[np.ndarray]:
        pytest.fail("drew a frame")
        yield from ()

    with pytest.raises(UsageError, match=r"must end in \.gif, \.webp or \.mp4"):
        write_animation(never(), tmp_path / name, fps=10)


def test_no_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no frames for the animation .*episode\.gif"):
        write_animation([], tmp_path / "episode.gif", fps=10)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fps", [0, -1.0, float("nan"), float("inf")])
def test_a_senseless_speed_is_refused(tmp_path: Path, fps: float) -> None:
    with pytest.raises(UsageError, match=r"fps is .*positive"):
        write_animation(squares(2), tmp_path / "episode.gif", fps)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((40, 60), np.uint8),
        np.zeros((40, 60, 4), np.uint8),
        np.zeros((0, 0, 3), np.uint8),
        np.zeros((40, 60, 3), np.float32),
    ],
)
def test_frames_of_another_kind_are_refused(tmp_path: Path, wrong: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"frame 0 has shape .* must be \(H, W, 3\) uint8 of one size"):
        write_animation([wrong], tmp_path / "episode.gif", fps=10)


def test_frames_of_different_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"frame 1 has shape \(41, 60, 3\)"):
        write_animation([*squares(1), *squares(1, height=41)], tmp_path / "episode.gif", fps=10)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"file/episode\.gif cannot be written \(.*\); choose another place"):
        write_animation(squares(2), tmp_path / "file" / "episode.gif", fps=10)
    (tmp_path / "folder.gif").mkdir()
    with pytest.raises(UsageError, match=r"folder\.gif cannot be written"):
        write_animation(squares(2), tmp_path / "folder.gif", fps=10)
