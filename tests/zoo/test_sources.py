"""Models travel to hubs and back: the hubs' own libraries talk to a server of this test."""

import math
import os
import pathlib
import re
import shutil
import subprocess
import sys

import hub_server
import keras
import numpy as np
import pytest
import toy

from mtl_keras.zoo import info, load, push, save_to_zoo
from mtl_keras.zoo.registry import find

CARD, WEIGHTS = "card.json", "weights.npz"


@pytest.fixture(scope="module")
def model():
    return toy.model([toy.segmentation()])


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    return save_to_zoo(model, tmp_path_factory.mktemp("saved") / "cells", dtype="float32")


@pytest.fixture(scope="module")
def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def server():
    one = hub_server.HubServer()
    yield one
    one.stop()


@pytest.fixture
def hub(server, tmp_path, monkeypatch):
    """The server, which `huggingface_hub` takes for Hugging Face, with an empty cache."""
    library = pytest.importorskip("huggingface_hub")
    from huggingface_hub import constants, hf_api

    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    # The library keeps whole pieces of a download that breaks off; its own are larger than a toy.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr(hf_api.api, "endpoint", server.url)
    monkeypatch.setattr(hf_api.api, "token", "hf_test")
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    library.close_session()
    yield server
    library.close_session()


@pytest.fixture
def offline(monkeypatch):
    """Tells the library what HF_HUB_OFFLINE=1 tells it when it is imported."""
    import huggingface_hub
    from huggingface_hub import constants

    def tell():
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        huggingface_hub.close_session()

    return tell


def same(one, other):
    x = np.random.default_rng(0).uniform(0, 255, (1, *toy.SIZE, 3)).astype("float32")
    a, b = (keras.tree.flatten(m(x)) for m in (one, other))
    return all(np.array_equal(p, q) for p, q in zip(a, b, strict=True))


def fetched(address):
    """The files that an address leads to, without building the model."""
    found = find(address)
    found.checked(WEIGHTS)
    return {name: (found.folder / name).read_bytes() for name in (CARD, WEIGHTS)}


# === Hugging Face ===
def test_a_model_comes_from_hugging_face(hub, model, files):
    hub.commit("org/cells", {**files, "README.md": b"# Cells", "large.bin": b"0" * 100})
    again = load("hf://org/cells")
    assert again.name == "cells" and same(model, again)
    assert not hub.asked("large.bin") and not hub.asked("README.md")
    before = len(hub.asked("/resolve/"))
    assert same(model, load("hf://org/cells"))
    assert len(hub.asked("/resolve/")) == before, "what is in the cache was downloaded again"


def test_a_card_comes_alone(hub, files):
    hub.commit("org/cells", files)
    assert info("hf://org/cells")["tasks"] == ["segmentation"]
    assert hub.asked(CARD) and not hub.asked(WEIGHTS)
    load("hf://org/cells", weights=False)
    assert not hub.asked(WEIGHTS)


def test_folders_and_revisions_are_chosen(hub, model, files, tmp_path):
    other = save_to_zoo(model, tmp_path / "small")
    first = hub.commit("org/zoo", {f"a/b/{name}": data for name, data in files.items()})
    hub.commit("org/zoo", {f"a/b/{path.name}": path.read_bytes() for path in other.iterdir()})
    hub.repos["org/zoo"]["feature/x"] = first
    assert info("hf://org/zoo/a/b")["name"] == "small"
    assert fetched(f"hf://org/zoo@{first}/a/b") == files
    assert fetched("hf://org/zoo@feature%2Fx/a/b/") == files


@pytest.mark.parametrize("told", [True, False])
def test_what_is_in_the_cache_needs_no_network(hub, model, files, offline, told):
    hub.commit("org/cells", files)
    load("hf://org/cells")
    with hub.down():
        if told:
            offline()
        assert same(model, load("hf://org/cells"))
        with pytest.raises(ConnectionError, match="hf://org/others.*could not be downloaded"):
            load("hf://org/others")


def test_the_environment_alone_does_it(server, files, tmp_path):
    """In a process in which nothing is patched; cards need no TensorFlow."""
    pytest.importorskip("huggingface_hub")
    server.commit("org/cells", files)
    code = "import sys; from mtl_keras.zoo import info; print(info(sys.argv[1])['name'])"

    def ask(address, **environment):
        given = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
        return subprocess.run(
            [sys.executable, "-c", code, address],
            env={**os.environ, **given, **environment},
            capture_output=True,
            text=True,
        )

    found = ask("hf://org/cells")
    assert found.stdout.split() == ["cells"], found.stderr
    asked = len(server.requests)
    assert asked and (tmp_path / "hub").is_dir()
    assert ask("hf://org/cells", HF_HUB_OFFLINE="1").stdout.split() == ["cells"]
    lost = ask("hf://org/others", HF_HUB_OFFLINE="1")
    assert lost.returncode and "ConnectionError: 'hf://org/others' could not be" in lost.stderr
    assert len(server.requests) == asked


def test_a_cache_that_holds_the_card_alone_says_so(hub, files, offline):
    hub.commit("org/cells", files)
    info("hf://org/cells")
    with hub.down():
        offline()
        assert info("hf://org/cells")["name"] == "cells"
        with pytest.raises(ConnectionError, match="hf://org/cells.*does not hold all"):
            load("hf://org/cells")


def test_a_download_that_breaks_off_goes_on(hub, model, files):
    hub.commit("org/cells", files)
    hub.broken = 1
    assert fetched("hf://org/cells") == files
    first, second = hub.asked(WEIGHTS)
    assert first is None
    assert 0 < int(second.removeprefix("bytes=").removesuffix("-")) < len(files[WEIGHTS])


def test_a_download_that_stays_broken_is_an_error_of_the_connection(hub, model, files, monkeypatch):
    from huggingface_hub import file_download

    monkeypatch.setattr(file_download.time, "sleep", lambda seconds: None)
    hub.commit("org/cells", files)
    hub.broken = math.inf
    with pytest.raises(ConnectionError, match="hf://org/cells.*could not be downloaded"):
        load("hf://org/cells")
    assert hub.asked(WEIGHTS)[1:] == [hub.asked(WEIGHTS)[1]] * 5  # as often as the library tries
    # It leaves nothing that is taken for the whole; the next call begins anew.
    hub.broken = 0
    assert fetched("hf://org/cells") == files


def test_a_server_that_breaks_off_is_an_error_of_the_connection(hub, files, monkeypatch):
    hub.commit("org/cells", files)
    monkeypatch.setattr(
        hub_server._Handler, "_get", lambda self, _: setattr(self, "close_connection", True)
    )
    with pytest.raises(ConnectionError, match="hf://org/cells.*could not be downloaded"):
        load("hf://org/cells")


def test_what_does_not_exist_is_named(hub, files):
    hub.commit("org/cells", files)
    with pytest.raises(FileNotFoundError, match="no repository 'org/cell'.*hf auth login"):
        load("hf://org/cell")
    with pytest.raises(FileNotFoundError, match="hf://org/cells@v2' has no revision 'v2'"):
        load("hf://org/cells@v2")
    with pytest.raises(FileNotFoundError, match="hf://org/cells/small' has no file card.json and"):
        load("hf://org/cells/small")
    hub.commit("org/cells", {WEIGHTS: None})
    with pytest.raises(FileNotFoundError, match="hf://org/cells' has no file weights.npz"):
        load("hf://org/cells")
    hub.private.add("org/cells")
    with pytest.raises(FileNotFoundError, match="no repository 'org/cells'.*hf auth login"):
        load("hf://org/cells@v3")


def test_damaged_weights_are_not_loaded(hub, model, files, tmp_path):
    damaged = bytearray(files[WEIGHTS])
    damaged[len(damaged) // 2] ^= 1
    hub.commit("org/cells", {**files, WEIGHTS: bytes(damaged)})
    with pytest.raises(ValueError, match="weights.npz.*damaged.*SHA-256.*Delete the folder") as e:
        load("hf://org/cells")
    # What the error says helps, once the repository is mended.
    cache = pathlib.Path(re.search(r"Delete the folder '([^']+)'", str(e.value))[1])
    assert cache.is_relative_to(tmp_path / "hf")
    shutil.rmtree(cache)
    hub.commit("org/cells", files)
    assert fetched("hf://org/cells") == files


def test_what_is_no_card_is_named(hub):
    hub.commit("org/bert", {CARD: b'{"name": "bert"}', WEIGHTS: b""})
    with pytest.raises(ValueError, match="no card of a model of mtl_keras: it lacks"):
        load("hf://org/bert")


@pytest.mark.parametrize(
    "address",
    [
        "hf://cells",
        "hf:/org/cells",
        "hf://org/cells@",
        "hub://org/cells",
        "kaggle://org/cells/keras",
    ],
)
def test_near_misses_of_addresses_are_named(address):
    with pytest.raises((ValueError, FileNotFoundError), match="address|no model") as error:
        load(address)
    assert address in str(error.value)


# === To Hugging Face ===
def test_a_folder_goes_to_hugging_face_and_comes_back(hub, model, folder, files, tmp_path):
    mine = tmp_path / "mine"
    shutil.copytree(folder, mine)
    (mine / "README.md").write_text("# Cells\n")
    (mine / ".secret").write_text("hidden")
    assert push(mine, "hf://me/cells", message="The first.") == "hf://me/cells"
    there = hub.files("me/cells")
    assert {name: there[name] for name in files} == files
    assert set(there) == {CARD, WEIGHTS, "README.md", ".gitattributes"}
    assert hub.messages == ["The first."]
    assert fetched("hf://me/cells") == files


def test_a_model_goes_to_a_branch_and_a_folder(hub, model, folder, files):
    push(folder, "hf://me/zoo")
    main = hub.files("me/zoo")
    push(model, "hf://me/zoo@next/small/cells")
    assert hub.files("me/zoo") == main
    assert {"small/cells/card.json", "small/cells/weights.npz"} <= set(hub.files("me/zoo", "next"))
    assert load("hf://me/zoo@next/small/cells").name == "cells"
    # Again to the same place: the branch is there, and the model is another.
    push(toy.model([toy.segmentation(num_classes=2)]), "hf://me/zoo@next/small/cells")
    assert load("hf://me/zoo@next/small/cells").tasks[0].num_classes == 2


def test_what_is_damaged_is_not_pushed(server, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "mine")
    (tmp_path / "mine" / WEIGHTS).write_bytes(b"other")
    with pytest.raises(ValueError, match="weights.npz.*damaged"):
        push(tmp_path / "mine", "hf://me/cells")
    with pytest.raises(ValueError, match="`address`.*Received: 'cells'"):
        push(folder, "cells")
    with pytest.raises(ValueError, match="no version"):
        push(folder, "kaggle://me/cells/keras/small/3")
    assert not server.requests


# === Without the libraries ===
@pytest.mark.parametrize(
    "library, address",
    [("huggingface_hub", "hf://a/b"), ("kagglehub", "kaggle://a/b/keras/d")],
)
def test_a_missing_library_names_the_extra(monkeypatch, library, address, folder):
    monkeypatch.setitem(sys.modules, library, None)
    for act in (load, info, lambda where: push(folder, where)):
        with pytest.raises(ImportError, match=rf"{library}.*pip install 'mtl-keras\[share\]'"):
            act(address)


# === Kaggle ===
@pytest.fixture
def kaggle(server, tmp_path, monkeypatch):
    """The server, which `kagglehub` takes for Kaggle, with an empty cache."""
    library = pytest.importorskip("kagglehub")
    from kagglesdk import kaggle_env

    monkeypatch.setattr(library.clients, "CHUNK_SIZE", 1000)

    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "nobody"))
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kaggle"))
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.LOCAL, server.url)
    return server


NAME = "me/cells/keras/small"


def test_a_model_comes_from_kaggle(kaggle, model, files):
    kaggle.kaggle[NAME] = [files]
    assert info(f"kaggle://{NAME}")["tasks"] == ["segmentation"]
    assert not kaggle.asked(WEIGHTS)
    assert same(model, load(f"kaggle://{NAME}"))
    before = len(kaggle.asked("/kaggle-files/"))
    assert before == 2 and same(model, load(f"kaggle://{NAME}"))
    assert len(kaggle.asked("/kaggle-files/")) == before


def test_versions_are_chosen_and_not_mixed(kaggle, model, files, tmp_path):
    other = save_to_zoo(model, tmp_path / "other")
    kaggle.kaggle[NAME] = [files, {p.name: p.read_bytes() for p in other.iterdir()}]
    assert info(f"kaggle://{NAME}")["name"] == "other"
    assert fetched(f"kaggle://{NAME}/1") == files
    with pytest.raises(FileNotFoundError, match="no model at Kaggle|lacks the file"):
        load(f"kaggle://{NAME}/3")


def test_a_version_in_the_cache_needs_no_network(kaggle, model, files):
    kaggle.kaggle[NAME] = [files]
    load(f"kaggle://{NAME}")
    with kaggle.down():
        assert fetched(f"kaggle://{NAME}/1") == files
        with pytest.raises(ConnectionError, match=f"could not be downloaded.*{NAME}/1"):
            load(f"kaggle://{NAME}")


def test_a_download_from_kaggle_that_breaks_off_goes_on_when_it_is_asked_again(
    kaggle, model, files
):
    kaggle.kaggle[NAME] = [files]
    kaggle.broken = 1
    with pytest.raises(ConnectionError, match="could not be downloaded"):
        load(f"kaggle://{NAME}")
    assert fetched(f"kaggle://{NAME}") == files
    wanted = int(kaggle.asked(WEIGHTS)[-1].removeprefix("bytes=").removesuffix("-"))
    assert 0 < wanted < len(files[WEIGHTS])


def test_what_kaggle_does_not_have_is_named(kaggle, files):
    kaggle.kaggle[NAME] = [{CARD: files[CARD]}]
    with pytest.raises(FileNotFoundError, match="lacks the file 'weights.npz'"):
        load(f"kaggle://{NAME}")
    with pytest.raises(FileNotFoundError, match="no model at Kaggle.*kagglehub.login"):
        load("kaggle://me/cells/keras/large")
    kaggle.private.add(NAME)
    with pytest.raises(FileNotFoundError, match="no model at Kaggle.*kagglehub.login"):
        load(f"kaggle://{NAME}")


def test_a_model_goes_to_kaggle_and_comes_back(kaggle, model, folder, files, tmp_path, monkeypatch):
    monkeypatch.setenv("KAGGLE_USERNAME", "me")
    monkeypatch.setenv("KAGGLE_KEY", "key")
    mine = tmp_path / "mine"
    shutil.copytree(folder, mine)
    (mine / ".secret").write_text("hidden")
    push(mine, f"kaggle://{NAME}")
    push(model, f"kaggle://{NAME}", message="The second.")
    first, second = kaggle.kaggle[NAME]
    assert first == files and set(second) == set(files)
    assert kaggle.messages == ["", "The second."]
    assert load(f"kaggle://{NAME}").name == "small"
    assert same(model, load(f"kaggle://{NAME}/1"))
