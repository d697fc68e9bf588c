"""Listing: which objects a place names, sorted, without what is nobody's image."""

from collections.abc import Iterator

from job.errors import StorageError
from job.inputs.left_out import LeftOut, why_left_out
from job.storage.location import Location
from job.storage.notices import waiting_for
from job.storage.objects import Listing, StoredObject
from job.storage.refusals import STORAGE_ERRORS, explain, kind_of
from job.storage.uris import plain


def list_objects(
    place: Location, name: str = "", left_out: LeftOut | None = None
) -> Iterator[StoredObject]:
    """List a folder or prefix (recursively), a glob, or a single object, sorted by path.

    What is there by that very name comes before what it would match as a glob. On S3 no more than a
    page of a listing is in memory, locally no more than a folder. Links to folders are followed,
    each folder once.

    Args:
        place: what to list.
        name: what messages call it; by default its URI.
        left_out: counts what lies there and is not listed: files of operating systems, links that
            lead nowhere.

    Raises:
        StorageError: nothing is there, or it may not be listed.
    """
    return (found for found, _ in find_objects(place, name or place.uri, left_out or LeftOut()))


def find_objects(
    place: Location, name: str, left_out: LeftOut
) -> Iterator[tuple[StoredObject, bool]]:
    """:func:`list_objects`, each with whether it is asked for by its name: itself, or by a glob."""
    nothing = True
    waiting = waiting_for(f"INPUT {name}")
    try:
        with waiting:
            listing = place.listing(left_out.add)
            for found in _sifted(listing, left_out):
                waiting.over()
                nothing = False
                yield found, listing.names != "folder"
    except Exception as error:  # filesystems of other clouds have errors of their own
        if not isinstance(error, STORAGE_ERRORS) and kind_of(error) == "unknown":
            raise
        raise StorageError(f"INPUT {name} cannot be listed: {explain(error)}") from error
    if nothing and not left_out.total:
        raise StorageError(
            f"INPUT {name}: nothing is there. Check the spelling; a folder, a prefix, a glob such"
            " as photos/**/*.jpg or a single image is expected"
        )


def _sifted(listing: Listing, left_out: LeftOut) -> Iterator[StoredObject]:
    """Without what operating systems have left there; one object by its own name is itself."""
    if listing.names == "object":
        yield from listing.objects
        return
    root = plain(listing.root)
    for found in listing.objects:
        path = plain(found.path).removeprefix(root)
        # A console's stand-in for an empty folder, or a web server's link to sort one.
        if not path or path.endswith("/"):
            continue
        reason = why_left_out(path)
        if reason is None:
            yield found
        else:
            left_out.add(reason, path)
