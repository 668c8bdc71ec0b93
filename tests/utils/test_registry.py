"""The registry: every built name resolves, unknown ones say what is near."""

import pytest

from mmpt.utils.errors import ConfigError
from mmpt.utils.registry import build, known_names, register, resolve, resolve_class
from mmpt.utils.registry_table import TABLE

BUILT = [(kind, name) for kind, names in TABLE.items() for name, entry in names.items() if entry.target]
PLANNED = [(kind, name) for kind, names in TABLE.items() for name, entry in names.items() if not entry.target]


@pytest.mark.parametrize(("kind", "name"), BUILT)
def test_every_built_name_resolves(kind: str, name: str) -> None:
    assert callable(resolve(kind, name))
    assert isinstance(resolve_class(kind, name), type)


@pytest.mark.parametrize(("kind", "name"), PLANNED)
def test_a_name_not_built_yet_says_so(kind: str, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot run yet"):
        resolve(kind, name)


def test_own_classes_by_path_and_by_registration() -> None:
    assert resolve("aligner", "collections:OrderedDict")() == {}
    register("loss", "TestOnlyCounter", "collections:Counter", a=2)
    assert build("loss", "TestOnlyCounter") == {"a": 2}
    assert "TestOnlyCounter" in known_names("loss")
    with pytest.raises(ConfigError, match="already registered"):
        register("loss", "MMContraLoss", "collections:Counter")
    with pytest.raises(ConfigError, match="OrderedDict"):
        resolve("aligner", "collections:OrderedDcit")
