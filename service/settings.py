"""The service's settings, read from `LEADTIME_*` environment variables."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from service.artifact import ModelName
from service.cores import usable_cores
from service.errors import SettingsError
from service.limits import Rate
from service.tls import Tls

PREFIX: Final = "LEADTIME_"
WINDOWS_CEILING: Final = 65_536

_ORIGIN: Final = re.compile(r"https?://[^/?#@\s*]+")


def _not_empty(value: object) -> object:
    # An empty path would be the folder that the process happens to stand in.
    if value == "":
        raise ValueError("it is empty: name a folder, or leave it out")
    return value


def _rate(value: object) -> Rate:
    return value if isinstance(value, Rate) else Rate.parse(str(value))


def _origins(value: object) -> object:
    if not isinstance(value, str):
        return value
    origins = tuple(part.strip().rstrip("/") for part in value.split(","))
    if not all(origin == "*" or _ORIGIN.fullmatch(origin) for origin in origins):
        raise ValueError("it must be origins such as https://example.org, with commas between, or *")
    return origins


def _folder(path: Path) -> Path:
    if path.exists() and not path.is_dir():
        raise ValueError("it names a file: name the folder that holds <name>/<version>/model.onnx")
    return path


class Settings(BaseSettings):
    """What the service is told from outside; every field is `LEADTIME_<FIELD>` in the environment."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    host: str = Field(default="127.0.0.1", min_length=1, description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65_535, description="Port to listen on; 0 = any free one.")
    workers: int = Field(default_factory=usable_cores, ge=1, le=256, description="Number of processes.")
    models: Annotated[Path, BeforeValidator(_not_empty), AfterValidator(_folder)] | None = Field(
        default=None, description="Folder of <name>/<version>/model.onnx; without it, the bundled model alone."
    )
    versions: int = Field(
        default=3, ge=1, description="How many of the newest versions of a model are kept; labelled ones are besides."
    )
    signing_keys: Annotated[Path, BeforeValidator(_not_empty)] | None = Field(
        default=None,
        description="File or folder of public keys, one of which must have signed each model; without it, none.",
    )
    default_model: ModelName = Field(default="default", description="The model of requests that name none.")
    keys: Annotated[Path, BeforeValidator(_not_empty)] | None = Field(
        default=None, description="File of API keys; without it, nobody is asked for one."
    )
    anonymous_limit: Annotated[Rate, BeforeValidator(_rate)] | None = Field(
        default=None, description="Rate of requests without a known key, for each address."
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_origins)] | None = Field(
        default=None, description="Origins whose pages may read answers, with commas between, or *; without it, none."
    )
    tls_certificate: Annotated[Path, BeforeValidator(_not_empty)] | None = Field(
        default=None, description="File of a certificate, and of those that signed it, to speak TLS with."
    )
    tls_key: Annotated[Path, BeforeValidator(_not_empty)] | None = Field(
        default=None, description="File of the certificate's key; without it, it is in the certificate's file."
    )
    tls_client_ca: Annotated[Path, BeforeValidator(_not_empty)] | None = Field(
        default=None, description="File of certificates, one of which must have signed each client's."
    )
    max_body_bytes: int = Field(default=8 * 1024 * 1024, ge=1, description="Most bytes in a request body.")
    max_windows: int = Field(default=16_384, ge=1, le=WINDOWS_CEILING, description="Most windows in a request.")
    max_window_length: int = Field(default=65_536, ge=1, description="Most steps in one window.")
    max_horizon: int = Field(default=1000, ge=1, le=100_000, description="Most steps forecast ahead.")
    max_batch: int = Field(default=1024, ge=1, le=4096, description="Most sequences that the model runs at once.")
    max_steps: int = Field(
        default=16_777_216, ge=1, description="Most steps that wait to be run in a process, of windows and ahead."
    )
    request_seconds: float = Field(
        default=60.0,
        gt=0,
        allow_inf_nan=False,
        description="How long a forecast may take; a request may ask for less with X-Request-Timeout-Ms.",
    )
    refresh_seconds: float = Field(
        default=2.0,
        ge=0,
        allow_inf_nan=False,
        description="How often the folder is looked through, beside being watched; 0 = neither.",
    )
    keep_alive_seconds: int = Field(default=75, ge=1, description="How long an idle connection is kept.")
    max_connections: int = Field(default=4096, ge=1, le=1_000_000, description="Most open connections of a process.")
    read_seconds: float = Field(
        default=20.0,
        gt=0,
        allow_inf_nan=False,
        description="How long a request may take to come, and as long again for each 256 KiB of it.",
    )
    write_seconds: float = Field(
        default=60.0, gt=0, allow_inf_nan=False, description="How long a client may leave an answer unread."
    )
    drain_seconds: int = Field(
        default=30, ge=0, description="How long requests in flight may take to finish at a stop."
    )
    notice_seconds: float = Field(
        default=1.0,
        ge=0,
        allow_inf_nan=False,
        description="How long SIGTERM is announced by readiness alone, before new connections are refused.",
    )
    cache_bytes: int = Field(default=0, ge=0, description="Most bytes of answers that a process keeps; 0 = none.")
    hang_seconds: float = Field(
        default=30.0,
        ge=0,
        allow_inf_nan=False,
        description="How long a worker may stand still before it is replaced; 0 = for good.",
    )
    metrics: Annotated[Path, BeforeValidator(_not_empty), AfterValidator(_folder)] | None = Field(
        default=None,
        description="Folder in which the workers keep their counts; without it, one that is made and removed again.",
    )
    request_metrics: Literal["on", "off"] = Field(
        default="on", description="Whether requests are counted and timed, for `GET /metrics`."
    )
    access_log: Literal["off"] | Annotated[float, Field(ge=0, le=1)] = Field(
        default="off",
        description="Share of the requests that went well, 0 to 1, that are logged, beside all others; off: none.",
    )
    log_format: Literal["text", "json"] = Field(default="text", description="What lines of the log are: text or JSON.")
    log_level: Literal["critical", "error", "warning", "info", "debug"] = Field(
        default="info", description="The least severe messages that are logged."
    )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "Settings":
        """Read the settings from `environ`; names without the prefix are ignored.

        Raises:
            SettingsError: a name with the prefix is unknown, or a value cannot be held; it names every one of them.
        """
        variables = {name: value for name, value in environ.items() if name.upper().startswith(PREFIX)}
        faults = [_unknown(name) for name in sorted(variables) if name not in _names()]
        source = EnvSettingsSource(cls)
        source.env_vars = {name.lower(): value for name, value in variables.items()}
        try:
            settings = cls(**source())
        except ValidationError as error:
            faults += [
                f"{PREFIX}{str(fault['loc'][0]).upper()}: {_plain(fault['msg'])}"
                for fault in error.errors(include_url=False, include_input=False)
            ]
        if faults:
            raise SettingsError("; ".join(faults))
        return settings

    @property
    def tls(self) -> Tls | None:
        """The certificate that the service shows, if any.

        Raises:
            SettingsError: there is a key or an authority of clients, but no certificate.
        """
        if self.tls_certificate is None:
            for name in ("tls_key", "tls_client_ca"):
                if getattr(self, name) is not None:
                    raise SettingsError(f"{PREFIX}{name.upper()}: it needs {PREFIX}TLS_CERTIFICATE beside it")
            return None
        return Tls(self.tls_certificate, self.tls_key, self.tls_client_ca)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The environment is an argument of `from_environment`; nothing is read behind the caller's back.
        return (init_settings,)


def _names() -> list[str]:
    return [PREFIX + field.upper() for field in Settings.model_fields]


def _unknown(name: str) -> str:
    near = get_close_matches(name.upper(), _names(), n=1, cutoff=0.0)
    return f"{name} is no setting; the nearest is {near[0]}"


def _plain(message: str) -> str:
    return message.removeprefix("Value error, ").replace("Input should", "it must")
