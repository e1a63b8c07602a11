# The router as an image. TORCH chooses how much comes along:
#   none   no PyTorch: classifiers are computed by ONNX Runtime (requirements/lean.txt)
#   cpu    PyTorch from TORCH_INDEX_URL, the address that PyTorch's installation page shows for "CPU"; without an address
#          from the default package index, which for x86-64 has it with CUDA
#   cuda   PyTorch as the default package index has it: several GB
# docker build -t dicom-ai-router .

ARG PYTHON_IMAGE=python:3.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG TORCH=none
ARG TORCH_INDEX_URL=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python -m venv /opt/router
ENV PATH=/opt/router/bin:$PATH
# What changes rarely comes first, so that a changed line of ours does not fetch PyTorch again.
COPY requirements/ requirements/
RUN pip install -r requirements/lean.txt "psycopg[binary]>=3.2,<4"
RUN set -eu; case "$TORCH" in \
      none) ;; \
      cpu) pip install "torch>=2.4" ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"}; \
           pip install "torchxrayvision>=1.4,<2" ;; \
      cuda) pip install "torch>=2.4" "torchxrayvision>=1.4,<2" ;; \
      *) echo "TORCH is none, cpu or cuda, not $TORCH" >&2; exit 1 ;; \
    esac
COPY pyproject.toml README.md LICENSE ./
COPY router/ router/
RUN pip install --no-deps .

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="dicom-ai-router" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.description="DICOM node: receives, classifies chest radiographs, delivers. Not a medical device."
RUN groupadd --gid 10001 router \
 && useradd --uid 10001 --gid router --no-create-home --home-dir /var/lib/router --shell /usr/sbin/nologin router \
 && install -d -o router -g router -m 0750 /var/lib/router
COPY --from=build /opt/router /opt/router
COPY config/ /etc/router/
ENV PATH=/opt/router/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER router
WORKDIR /var/lib/router
VOLUME /var/lib/router
EXPOSE 11112 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health/live', timeout=4)"]
ENTRYPOINT ["router"]
CMD ["serve", "--config", "/etc/router/compose.toml"]
