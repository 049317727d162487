"""Makes the pictures of the gallery, by running examples whole.

python docs/images/gallery.py             # all of them: half an hour
python docs/images/gallery.py iris        # one of them
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
# What each example writes that says most about it.
PICTURES = {
    "enough_restarts": "restarts.png",
    "error_bars": "coverage.png",
    "galaxies": "criteria.png",
    "iris": "entropies.png",
    "label_switching": "label_switching.png",
    "latent_classes": "profiles.png",
    "missing_lab_values": "missing.png",
    "mixed_columns": "groups.png",
    "noisy_stars": "noisy_stars.png",
    "old_faithful": "old_faithful/components.png",
    "outliers": "outliers.png",
    "own_prior": "marginals.png",
    "panel": "panel.png",
    "restart_landscape": "optima.png",
    "soft_and_hard": "soft_and_hard.png",
    "two_lines": "lines.png",
    "wrong_model": "errors.png",
}

for name in sys.argv[1:] or PICTURES:
    script = HERE.parents[1] / "examples" / f"{name}.py"
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, script], cwd=folder, check=True)
        picture = Image.open(Path(folder, PICTURES[name])).convert("RGB")
    picture.thumbnail((960, 720))
    # With a palette, which is a third of the size.
    picture.quantize(64).save(HERE / "gallery" / f"{name}.png", optimize=True)
