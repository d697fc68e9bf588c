"""Guard: what it does in a process by itself."""

from job.cluster.guard import Guard


def test_without_a_tracker_there_is_nothing_between_the_images_and_the_work() -> None:
    guard = Guard("decode")
    assert guard.over([7, 8], lambda some: [10 * position for position in some]) == [0, 10]
    with guard.watching([7], "an image"):
        pass
