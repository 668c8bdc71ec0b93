"""The registry: every name resolves, unknown ones say what is near."""

import pytest

from mmpt.utils.errors import ConfigError
from mmpt.utils.registry import build, known_names, register, resolve, resolve_class
from mmpt.utils.registry_table import TABLE

NAMES = [(kind, name) for kind, names in TABLE.items() for name in names]


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_every_name_resolves(kind: str, name: str) -> None:
    assert callable(resolve(kind, name))
    assert isinstance(resolve_class(kind, name), type)


def test_own_classes_by_path_and_by_registration() -> None:
    assert resolve("aligner", "collections:OrderedDict")() == {}
    register("loss", "TestOnlyCounter", "collections:Counter", a=2)
    assert build("loss", "TestOnlyCounter") == {"a": 2}
    assert "TestOnlyCounter" in known_names("loss")
    with pytest.raises(ConfigError, match="already registered"):
        register("loss", "MMContraLoss", "collections:Counter")
    with pytest.raises(ConfigError, match="OrderedDict"):
        resolve("aligner", "collections:OrderedDcit")
