"""`/v1/files` over a real database and a real folder of blobs."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx2
import openai
import psycopg
import pytest

from jobs import connect
from tests.fixtures.api import ServedApi, served
from tests.fixtures.services import fresh_database, fresh_prefix, settings_for

pytestmark = pytest.mark.integration

LINES = b'{"custom_id": "1"}\n' * 3


@pytest.fixture(scope="module")
def api(services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedApi]:
    folder: Path = tmp_path_factory.mktemp("files")
    with fresh_database(services) as database_url:
        settings = settings_for(database_url, services.redis_url, fresh_prefix(), folder)
        settings = settings.model_copy(update={"spool_folder": str(folder)})
        with served(settings, max_file_bytes=3 * 2**20, max_batch_file_bytes=2 * 2**20) as running:
            yield running


def upload(http: httpx2.Client, data: bytes = LINES, name: str = "in.jsonl", headers=None, **fields: str):
    return http.post("/v1/files", data={"purpose": "batch"} | fields, files={"file": (name, data)}, headers=headers)


def test_openai_client_uploads_reads_lists_downloads_and_deletes(client: openai.OpenAI) -> None:
    file = client.files.create(file=("in.jsonl", LINES), purpose="batch")
    assert (file.object, file.bytes, file.filename, file.purpose) == ("file", len(LINES), "in.jsonl", "batch")
    assert file.status == "processed"
    assert file.expires_at == file.created_at + 30 * 86400
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).read() == LINES
    assert client.files.wait_for_processing(file.id) == file
    assert file in list(client.files.list(purpose="batch"))
    deleted = client.files.delete(file.id)
    assert (deleted.id, deleted.deleted, deleted.object) == (file.id, True, "file")
    with pytest.raises(openai.NotFoundError) as gone:
        client.files.content(file.id)
    assert gone.value.code == "file_not_found"


def test_a_large_file_comes_back_byte_for_byte_with_its_length(http: httpx2.Client, api: ServedApi) -> None:
    data = b"".join(hashlib.sha256(n.to_bytes(4, "big")).digest() for n in range(80_000))
    made = upload(http, data, "großes Bild.bin", purpose="user_data").json()
    assert made["bytes"] == len(data) > 2 * 2**20
    assert (made["filename"], made["expires_at"]) == ("großes Bild.bin", None)
    with http.stream("GET", f"/v1/files/{made['id']}/content") as answer:
        assert answer.headers["content-length"] == str(len(data))
        assert "gro%C3%9Fes%20Bild.bin" in answer.headers["content-disposition"]
        assert b"".join(answer.iter_bytes()) == data


def test_a_download_that_is_left_in_the_middle_disturbs_nobody(http: httpx2.Client) -> None:
    made = upload(http, bytes(2**21), purpose="vision").json()
    with http.stream("GET", f"/v1/files/{made['id']}/content") as answer:
        next(answer.iter_raw(100))
    assert http.get(f"/v1/files/{made['id']}").status_code == 200


def test_expires_after_sets_the_life_of_a_file(client: openai.OpenAI, api: ServedApi) -> None:
    file = client.files.create(
        file=("cat.png", b"png"), purpose="vision", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert file.expires_at == file.created_at + 3600
    with psycopg.connect(api.services.database_url) as connection:
        connection.execute("UPDATE files SET expires_at = now() WHERE id = %s", [file.id])
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "3599"}, "expires_after.seconds"),
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "2592001"}, "expires_after.seconds"),
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "soon"}, "expires_after.seconds"),
        ({"expires_after[anchor]": "created_at"}, "expires_after.seconds"),
        ({"expires_after[seconds]": "3600"}, "expires_after.anchor"),
        ({"expires_after[anchor]": "last_active_at", "expires_after[seconds]": "3600"}, "expires_after.anchor"),
        ({"purpose": "poetry"}, "purpose"),
        ({"purpose": "batch_output"}, "purpose"),
        ({"purpose": "fine-tune"}, "purpose"),
        ({"purpose": "assistants"}, "purpose"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_field_is_refused_by_name(http: httpx2.Client, fields: dict[str, str], param: str) -> None:
    answer = upload(http, **fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_a_form_without_file_or_purpose_or_with_two_files_is_refused(http: httpx2.Client) -> None:
    one = ("file", ("a", b"x"))
    for answer, param in (
        (http.post("/v1/files", files=[one]), "purpose"),
        (http.post("/v1/files", data={"purpose": "batch"}, files=[one, one]), "file"),
        (http.post("/v1/files", data={"purpose": "batch"}, files=[("picture", ("a", b"x"))]), "picture"),
        (http.post("/v1/files", files={"purpose": (None, "batch")}), "file"),
        (upload(http, b""), "file"),
    ):
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", b"{}", 415),
        ("multipart/form-data", b"", 400),
        ("multipart/form-data; boundary=x", b"", 400),
        ("multipart/form-data; boundary=x", b"nonsense", 400),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nhal',
            400,
        ),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--\r\n", 400),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n\xff\r\n--x--\r\n',
            400,
        ),
    ],
)
def test_what_is_no_form_is_refused(http: httpx2.Client, kind: str, body: bytes, status: int) -> None:
    answer = http.post("/v1/files", content=body, headers={"content-type": kind})
    assert answer.status_code == status, answer.text
    assert answer.json()["error"].keys() == {"message", "type", "param", "code"}


def test_a_file_that_is_too_long_is_refused_also_without_an_announced_length(
    http: httpx2.Client, api: ServedApi
) -> None:
    def sent(size: int) -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nvision\r\n'
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(size):
            yield bytes(2**20)
        yield b"\r\n--x--\r\n"

    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert http.post("/v1/files", content=sent(3), headers=headers).status_code == 200
    for answer in (
        http.post("/v1/files", content=sent(4), headers=headers),
        upload(http, bytes(3 * 2**20 + 1), purpose="vision"),
        upload(http, bytes(2 * 2**20 + 1)),
        upload(http, bytes(4 * 2**20)),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "file_too_large")


def test_files_are_listed_by_page_and_order(http: httpx2.Client) -> None:
    ids = [upload(http, purpose="vision", name=f"{n}.png").json()["id"] for n in range(3)]
    first = http.get("/v1/files", params={"limit": 2, "purpose": "vision"}).json()
    assert ([f["id"] for f in first["data"]], first["has_more"]) == ([ids[2], ids[1]], True)
    assert (first["first_id"], first["last_id"]) == (ids[2], ids[1])
    rest = http.get("/v1/files", params={"after": ids[1], "order": "asc", "purpose": "vision"}).json()
    assert ([f["id"] for f in rest["data"]], rest["has_more"]) == ([ids[2]], False)
    assert http.get("/v1/files", params={"after": "file-none"}).status_code == 404
    for wrong in ({"limit": 0}, {"limit": 10_001}, {"order": "up"}, {"purpose": "poetry"}, {"colour": "red"}):
        assert http.get("/v1/files", params=wrong).status_code == 400


def test_the_same_upload_again_under_one_key_is_one_file(http: httpx2.Client) -> None:
    headers = {"idempotency-key": "upload-1"}
    first, again = upload(http, headers=headers), upload(http, headers=headers)
    assert first.json() == again.json()
    assert again.headers["idempotent-replayed"] == "true"
    assert upload(http, LINES * 2, headers=headers).status_code == 422


@pytest.mark.parametrize("file_id", ["file-unknown", "%00", "a" * 65])
def test_an_unknown_file_is_not_found(http: httpx2.Client, file_id: str) -> None:
    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        answer = http.request(method, f"/v1/files/{file_id}{path}")
        assert (answer.status_code, answer.json()["error"]["type"]) == (404, "invalid_request_error")


def test_another_tenants_files_are_not_found(api: ServedApi) -> None:
    database = connect.database(api.services)
    secrets = {tenant: connect.api_keys(database).create(tenant, "t")[1] for tenant in ("acme", "other")}
    try:
        acme, other = (api.client(headers={"authorization": f"Bearer {secrets[t]}"}) for t in ("acme", "other"))
        with acme, other:
            file_id = upload(acme).json()["id"]
            for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
                assert other.request(method, f"/v1/files/{file_id}{path}").status_code == 404
            assert other.get("/v1/files").json()["data"] == []
            assert acme.get(f"/v1/files/{file_id}/content").content == LINES
    finally:
        with psycopg.connect(api.services.database_url) as connection:
            connection.execute("DELETE FROM api_keys")
        database.close()
