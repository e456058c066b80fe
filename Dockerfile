# The operator, the movers and the command line are one image.
#
#   build    dependencies as locked (with hashes) and the project, in one virtual environment
#   (final)  base + that environment; no compiler, no package manager cache, no build tool
#
# Build arguments: BASE_IMAGE needs python3 (3.11 or newer) and CA certificates; BUILD_IMAGE is the same with pip. The
# default is named by its digest, so that a build does not change with the tag.
# Build secrets, both optional: package_env is a file of NAME=value lines for pip and uv (an index of one's own, say),
# package_ca a PEM bundle that they trust. Neither is left in the image.

ARG BASE_IMAGE=docker.io/library/python:3.12-slim@sha256:78387bc3881b8273120a12ebe6c1ab22b018ccc2c9adf565ae1ac9b536e184ea
ARG BUILD_IMAGE=${BASE_IMAGE}

FROM ${BUILD_IMAGE} AS build
# Bytecode is compiled here, once, because nothing can write it at run time and a mover's start is waited for. Unchecked
# hashes: an image never changes, and what depends on no file time is the same in every build.
ENV PYC_INVALIDATION_MODE=UNCHECKED_HASH \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_PYTHON=python3 \
    UV_PYTHON_DOWNLOADS=never \
    VIRTUAL_ENV=/opt/cinderblock
WORKDIR /src

COPY uv.requirements.txt ./
RUN --mount=type=secret,id=package_env --mount=type=secret,id=package_ca \
    set -a; if [ -f /run/secrets/package_env ]; then . /run/secrets/package_env; fi; \
    python3 -m pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
        --target /opt/uv --require-hashes -r uv.requirements.txt

COPY pyproject.toml uv.lock ./
# `uv export` and `uv pip` rather than `uv sync`: the lock names the files of the public index, and only this way does
# a build behind a mirror fetch the same hashes from there.
RUN --mount=type=secret,id=package_env --mount=type=secret,id=package_ca \
    set -e -a; if [ -f /run/secrets/package_env ]; then . /run/secrets/package_env; fi; \
    export PATH="/opt/uv/bin:${PATH}"; \
    install() { venv="$1"; shift; uv venv -q "${venv}"; \
        uv export -q --frozen --no-emit-project "$@" -o requirements.txt; \
        VIRTUAL_ENV="${venv}" uv pip install --require-hashes -r requirements.txt; }; \
    install /opt/hatch --only-group build; \
    install "${VIRTUAL_ENV}" --no-default-groups; rm -f "${VIRTUAL_ENV}/.lock"
# The typed APIs and models of kubernetes are never imported, except the models that kopf names. Their bytecode would be
# 45 MB of the image, 6 MB compressed.
RUN find "${VIRTUAL_ENV}"/lib/python3*/site-packages/kubernetes \
        \( -path '*/client/api/__pycache__/*' -o -path '*/client/models/__pycache__/*' \) \
        ! -name '__init__.*' ! -name 'v1_managed_fields_entry.*' ! -name 'v1_object_meta.*' \
        ! -name 'v1_owner_reference.*' -delete

COPY README.md LICENSE ./
COPY operator operator
# Into a place of its own, so that a change of code is a small layer on top of the dependencies.
RUN /opt/hatch/bin/hatchling build -t wheel -d dist \
    && /opt/uv/bin/uv pip install --offline --no-deps --prefix /opt/project dist/*.whl \
    && rm -f /opt/project/.lock \
    # The time of this build, in a note of uv's to itself: without it, two builds are equal byte for byte.
    && find /opt/project -name uv_cache.json -delete \
    && find /opt/project -name RECORD -exec sed -i '/uv_cache\.json/d' {} +

FROM ${BASE_IMAGE}
# Official Python images contain pip, which nothing here needs.
RUN find / -xdev \( -path '*-packages/pip' -o -path '*-packages/pip-*' -o -path '*/ensurepip' \
        -o -path '*/bin/pip' -o -path '*/bin/pip3*' \) -prune -exec rm -rf {} +
# Official Python images carry no bytecode of the standard library; where it is there already, nothing is written.
RUN python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash -x '/(test|tests|idlelib|lib2to3)/' \
        "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
    && echo 'cinderblock:x:65532:65532:cinderblock:/nonexistent:/usr/sbin/nologin' >> /etc/passwd \
    && echo 'cinderblock:x:65532:' >> /etc/group
COPY --from=build /opt/cinderblock /opt/cinderblock
COPY --from=build /opt/project /opt/cinderblock
# PYTHONSAFEPATH: the working directory can never put a module in front of the standard library's.
ENV PATH="/opt/cinderblock/bin:${PATH}" \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1
USER 65532:65532
ENTRYPOINT ["cinderblock"]
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="cinderblock" \
    org.opencontainers.image.description="Kubernetes operator that backs up PersistentVolumeClaims to S3, with the fields, statuses and rules of OpenStack Cinder's backup API" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}"
