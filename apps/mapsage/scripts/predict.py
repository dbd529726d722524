"""Label pictures: `python scripts/predict.py CONFIG CHECKPOINT PICTURES --out DIR`, from the folder `apps/mapsage`.

为影像预测标签：写出类别编号图与彩色叠加图；再次运行同一条命令时跳过已完成的影像。
"""

from mapsage.tools.predict import main
from unbroken.cli import run_tool

if __name__ == "__main__":
    raise SystemExit(run_tool(main))
