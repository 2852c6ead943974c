"""The truth of what is seen, from the shots: contacts, balls, columns, camera, speeds."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from avdata.pipeline.world.motion import speeds
from avdata.pipeline.world.occlusion import hidden
from avdata.pipeline.world.scene import Shot
from avdata.pipeline.world.truth import Contact, Passage, Trajectory


@dataclass(slots=True)
class Observed:
    """Fields of `Truth`."""

    shots: list[tuple[float, float]] = field(default_factory=list)
    frame_times: list[float] = field(default_factory=list)
    contacts: list[Contact] = field(default_factory=list)
    trajectories: list[Trajectory] = field(default_factory=list)
    passages: list[Passage] = field(default_factory=list)
    camera_xs: list[float] = field(default_factory=list)
    camera_ys: list[float] = field(default_factory=list)
    area_speeds: list[float] = field(default_factory=list)
    top_speeds: list[float] = field(default_factory=list)


def observed(shots: Sequence[Shot]) -> Observed:
    """Of shots one after the other."""
    seen, first_frame, bodies = Observed(contacts=contacts(shots)), 0, 0
    for number, shot in enumerate(shots):
        span, end = shot.span, first_frame + shot.span.num_frames
        seen.shots.append((first_frame / span.fps, end / span.fps))
        # From whole numbers of frames: exactly the multiples of 1 / fps.
        kept = range(span.num_frames) if span.kept is None else span.kept
        seen.frame_times += [(first_frame + frame) / span.fps for frame in kept]
        seen.trajectories += _trajectories(shot, number, bodies)
        camera = shot.camera.at(span.times)
        seen.camera_xs += (camera[:, 0] / span.aspect).tolist()
        seen.camera_ys += camera[:, 1].tolist()
        if shot.occluder is not None:
            xs = (shot.occluder.at(span.times) - camera[:, 0]) / span.aspect
            width = shot.occluder.width / span.aspect
            seen.passages.append(Passage(number, width, xs.tolist()))
        area, top = speeds(shot)
        seen.area_speeds += area.tolist()
        seen.top_speeds += top.tolist()
        first_frame, bodies = end, bodies + len(shot.balls)
    return seen


def contacts(shots: Sequence[Shot]) -> list[Contact]:
    """Of shots one after the other, in order of time, each heard when it happens."""
    found, first_frame, bodies = [], 0, 0
    for number, shot in enumerate(shots):
        for impact in shot.impacts:
            left, top = shot.camera.at(np.array([impact.t]))[0].tolist()
            x, y = (impact.x - left) / shot.span.aspect, impact.y - top
            inside = 0 <= x <= 1 and 0 <= y <= 1
            t = first_frame / shot.span.fps + impact.t
            found.append(
                Contact(
                    t=t,
                    shot=number,
                    x=x,
                    y=y,
                    impulse=impact.impulse,
                    material=shot.balls[impact.body].material,
                    body=bodies + impact.body,
                    on_screen=inside and not hidden(shot, impact),
                    occluded=inside and hidden(shot, impact),
                    t_heard=t,
                )
            )
        first_frame, bodies = first_frame + shot.span.num_frames, bodies + len(shot.balls)
    return found


def _trajectories(shot: Shot, number: int, bodies: int) -> list[Trajectory]:
    trajectories = []
    for body, ball in enumerate(shot.balls):
        x, y = shot.centre(body).T
        xs = (x / shot.span.aspect).tolist()
        trajectories.append(
            Trajectory(bodies + body, number, ball.material, ball.radius, xs, y.tolist())
        )
    return trajectories
