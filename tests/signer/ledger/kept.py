"""A daemon that was stopped once, as it was then: for tests that each do something else to what it has left."""

import shutil
from pathlib import Path

from tests.daemon import Rig


class Kept:
    """Stops the rig's daemon, and keeps what is in its directory; a rig without a PostgreSQL database."""

    def __init__(self, rig: Rig) -> None:
        rig.stop()
        self.rig = rig
        self._places = [rig.state, rig.anchor.parent]
        for place in self._places:
            shutil.copytree(place, self._copy(place))
        self._files = set(rig.directory.iterdir())

    def put_back(self) -> Rig:
        """The rig, stopped, with the state and the anchor of then; what tests have put beside them is gone."""
        self.rig.stop()
        for path in set(self.rig.directory.iterdir()) - self._files:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for place in self._places:
            shutil.rmtree(place)
            shutil.copytree(self._copy(place), place)
        self.rig.log.write_text("")
        self.rig._hand_over()
        return self.rig

    def _copy(self, place: Path) -> Path:
        return self.rig.directory / f"kept {place.name}"
