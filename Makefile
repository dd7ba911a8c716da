# Everything a fresh machine needs: Python 3.11, 3.12 or 3.13 with venv, make, a C compiler.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Plain enough for any Python to say which it is. An environment that is there already counts, whatever PYTHON is.
CHECK_PYTHON = import sys; v = sys.version_info[:2]; v in ((3, 11), (3, 12), (3, 13)) or sys.exit("Python %d.%d was \
found (%s), 3.11, 3.12 or 3.13 is needed: install one and name it, for example make install PYTHON=python3.12" \
% (v[0], v[1], sys.executable))
DEMO := demo
RUNS ?= $(HOME)/remul-md-runs
# Processes of the tests: one a core, two to four.
JOBS ?= $(shell n=$$(nproc 2> /dev/null || getconf _NPROCESSORS_ONLN); echo $$((n < 2 ? 2 : n > 4 ? 4 : n)))
MOLECULE ?= aspirin benzene ethanol malonaldehyde naphthalene salicylic toluene
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: install demo docs screenshots potentials direct-heads types test test-fast test-wheel cuda-check torch-cluster clean

# Bytecode of what is imported most, on all cores; pip would compile all of it, on one, in a minute. Without bytecode
# every process starts three times as slowly where PYTHONDONTWRITEBYTECODE is set. Of torch a few files are for other
# versions of Python and fail. The first lot, half of it, is compiled while pip installs the second.
BYTECODE_FIRST := torch sympy networkx
BYTECODE := numpy scipy ase MDAnalysis matplotlib pyscf hypothesis _pytest
TELL_PACKAGES := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
PACKAGES = $$($(BIN)/python $(TELL_PACKAGES))

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -c '$(CHECK_PYTHON)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --no-compile -c constraints.txt setuptools wheel torch
	@cd $(PACKAGES) && { $(CURDIR)/$(BIN)/python -m compileall -q $(BYTECODE_FIRST) > /dev/null & } && cd $(CURDIR) && \
	    $(BIN)/pip install -q --no-compile -c constraints.txt --no-build-isolation -e '.[dev]' && wait
	@cd $(PACKAGES) && { $(CURDIR)/$(BIN)/python -m compileall -q -j 0 $(BYTECODE) > /dev/null || true; }
	touch $@

# Train on packaged data, evaluate, run NVE, analyse: the commands a user would type. Resumes where it was stopped. The
# picture is that of README, drawn anew.
demo: install
	mkdir -p $(DEMO)
	$(BIN)/remul-md train demo-ethanol --run-dir $(DEMO)/run --resume
	$(BIN)/remul-md evaluate $(DEMO)/run/potential.pt rmd17/ethanol/test-01 --json $(DEMO)/evaluation.json
	$(BIN)/remul-md md $(DEMO)/run/potential.pt --structure ethanol --ensemble nve --temperature-K 300 \
	    --rotation thermal --timestep-fs 0.5 --equilibrate-ps 2 --length-ps 5 --output $(DEMO)/nve.traj --resume
	$(BIN)/remul-md analyze $(DEMO)/nve.traj --potential $(DEMO)/run/potential.pt --evaluation $(DEMO)/evaluation.json \
	    --report $(DEMO)/report.html --picture docs/demo.png --json $(DEMO)/analysis.json

# The site: build/site/index.html. Sphinx stands in a folder of its own, and the environment of the package as it was.
docs: install build/docs-packages/.installed
	PYTHONPATH=build/docs-packages $(BIN)/python -m sphinx -W --keep-going -q -d build/doctrees docs build/site
	@echo build/site/index.html

build/docs-packages/.installed: pyproject.toml constraints.txt
	rm -rf build/docs-packages
	$(BIN)/pip install -q --no-compile -c constraints.txt --target build/docs-packages $$($(BIN)/python -c \
	    'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"])')
	touch $@

# Pictures of README and site, docs/images: runs of two minutes, their pages in Chromium (apt-get install chromium
# chromium-driver), and what the commands draw.
SHOTS := build/screenshots
SHOT := ../../docs/images
screenshots: docs
	mkdir -p $(SHOTS)
	cd $(SHOTS) && PATH=$(CURDIR)/$(BIN):$$PATH && \
	remul-md md ethanol --structure ethanol --length-ps 1 --output run.traj --resume && \
	remul-md analyze run.traj --potential ethanol --report report.html && \
	remul-md compare ethanol ethanol@exact ethanol@direct --structure ethanol --report compare.html && \
	remul-md spectrum run.traj --picture $(SHOT)/spectrum.png && \
	remul-md compare run.traj rmd17/ethanol/test-01 --picture $(SHOT)/structures.png && \
	python ../../docs/screenshots.py $(SHOT)/report-wide.png 1400 1500 report.html \
	    $(SHOT)/report-phone.png 390 1400 report.html $(SHOT)/compare.png 1400 1500 compare.html \
	    $(SHOT)/site.png 1400 900 ../site/index.html

# Retrain what ships: make potentials MOLECULE="ethanol aspirin" RUNS=FOLDER. Preset: data/presets/NAME.yaml. Resumes
# where it was stopped. Evaluated by its name, so that the figures beside the potential hold no path of this machine.
potentials: install
	mkdir -p $(RUNS)
	for molecule in $(MOLECULE); do \
	    $(BIN)/remul-md train $$molecule --run-dir $(RUNS)/$$molecule --resume && \
	    cp $(RUNS)/$$molecule/potential.pt data/potentials/$$molecule.pt && \
	    cp $(RUNS)/$$molecule/metrics.csv data/potentials/$$molecule.metrics.csv && \
	    rm -f data/potentials/$$molecule.json && \
	    $(BIN)/remul-md evaluate $$molecule rmd17/$$molecule/test-01 --json data/potentials/$$molecule.json || exit 1; \
	done
	$(BIN)/remul-md potentials

# Add direct forces to what ships: make direct-heads MOLECULE="ethanol" RUNS=FOLDER. It starts from a copy of the
# potential, so that it resumes and repeats although the result takes its place. 500 K is the temperature of the data.
DISTILL ?= --n-replicas 128 --frame-interval-fs 5 --equilibrate-ps 0.05 --temperature-K 500 --set train.compile=true
direct-heads: install
	mkdir -p $(RUNS)
	for molecule in $(MOLECULE); do \
	    { test -f $(RUNS)/$$molecule-before.pt || cp data/potentials/$$molecule.pt $(RUNS)/$$molecule-before.pt; } && \
	    $(BIN)/remul-md distill $(RUNS)/$$molecule-before.pt --run-dir $(RUNS)/$$molecule-direct --resume \
	        --initial-structures rmd17/$$molecule/train-01 $(DISTILL) && \
	    cp $(RUNS)/$$molecule-direct/potential.pt data/potentials/$$molecule.pt && \
	    rm -f data/potentials/$$molecule.json data/potentials/$$molecule.direct.json && \
	    cp $(RUNS)/$$molecule-direct/metrics.csv data/potentials/$$molecule.direct.metrics.csv && \
	    $(BIN)/remul-md evaluate $$molecule rmd17/$$molecule/test-01 --json data/potentials/$$molecule.json && \
	    $(BIN)/remul-md evaluate $$molecule rmd17/$$molecule/test-01 --forces direct \
	        --json data/potentials/$$molecule.direct.json || exit 1; \
	done
	$(BIN)/remul-md potentials

# Types, of the package as a wheel lays it: with calculators/ and data/ inside, so that no name is Any.
types: install
	rm -rf build/typed && mkdir -p build/typed/remul_md
	ln -s $(CURDIR)/remul_md/* $(CURDIR)/calculators $(CURDIR)/data build/typed/remul_md/
	cd build/typed && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml -p remul_md

# Processes of one thread each: tests compute on small molecules, which more threads only slow down.
test: install types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

# What a change is tried with while it is made: all but the tests marked `slow`.
test-fast: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "not slow"

# The wheel in an environment of its own, used from outside the repository. Its dependencies are those installed here,
# found by path; what it does not declare, itself or through them, is hidden (tests/wheel_check.py).
test-wheel: install
	rm -rf build/lib build/bdist.* dist $(VENV)/wheel-test
	$(BIN)/python -m build --wheel --no-isolation -o dist .
	$(PYTHON) -m venv --without-pip $(VENV)/wheel-test
	$(BIN)/pip --python $(VENV)/wheel-test/bin/python install -q --no-deps dist/*.whl
	echo $(PACKAGES) > $$($(VENV)/wheel-test/bin/python $(TELL_PACKAGES))/installed-here.pth
	$(BIN)/pip --python $(VENV)/wheel-test/bin/python check
	cd / && $(CURDIR)/$(VENV)/wheel-test/bin/python $(CURDIR)/tests/wheel_check.py

# What a CUDA device has to say, in eight minutes at most: results/cuda_check.json (docs/cuda-runs.md). Its CHECK="--device
# cpu --budget-seconds 170" rehearses the same on the CPU, and leaves no file in results/.
cuda-check: install
	$(BIN)/python benchmarks/cuda_check.py $(CHECK)

# Source only and built against the installed torch, so it cannot be an extra. Takes 7 to 14 minutes.
torch-cluster: install
	$(BIN)/pip install -c constraints.txt --no-build-isolation torch-cluster==1.6.3
	$(BIN)/python -m pytest -m torch_cluster

clean:
	rm -rf $(VENV) $(DEMO) build dist *.egg-info
