"""Where the merged model goes, what it will be, and the one primary button of the screen."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import psutil
from PySide6.QtCore import QSize, Signal
from PySide6.QtWidgets import QComboBox, QFileDialog, QHBoxLayout, QLineEdit, QPushButton

from trimtab.project.edits import set_output
from trimtab_gui import texts
from trimtab_gui.desk import Desk
from trimtab_gui.merging import Merging, free_bytes, output_size
from trimtab_gui.views.output_options import OutputOptions, options_text
from trimtab_gui.views.recipe_card import RecipeCard
from trimtab_gui.widgets import Banner, Panel, label, primary_button, quiet_button
from trimtab_gui.widgets.labels import ElidedLabel

_DTYPES = ("reference", "bfloat16", "float16", "float32")


class OutputPanel(Panel):
    """The button is off while something is missing, and says what."""

    merge_requested = Signal()
    plan_requested = Signal()

    def __init__(self, desk: Desk, merging: Merging) -> None:
        super().__init__("Output")
        self.set_title(self.tr("Output"))
        self._desk = desk
        self._merging = merging
        self.folder = QLineEdit()
        self.folder.setAccessibleName(self.tr("Output folder"))
        self.folder.editingFinished.connect(self._folder_typed)
        choose = quiet_button("folder-open-outline", self.tr("Choose the output folder"))
        choose.clicked.connect(self.choose_folder)
        row = QHBoxLayout()
        row.setSpacing(4)
        row.addWidget(self.folder, 1)
        row.addWidget(choose)
        self.dtype = QComboBox()
        self.dtype.setAccessibleName(self.tr("Output precision"))
        names = {
            "reference": self.tr("Precision as the reference"),
            "bfloat16": "bf16", "float16": "fp16", "float32": "fp32",
        }  # fmt: skip
        for key in _DTYPES:
            self.dtype.addItem(names[key], key)
        self.dtype.activated.connect(self._dtype_chosen)
        self.more = quiet_button("tune-variant", self.tr("Shards, device and memory"))
        self.more.setIconSize(QSize(14, 14))
        self.more.clicked.connect(self.show_options)
        self.header_layout.addWidget(self.more)
        self.recipe = RecipeCard()
        self._options = ElidedLabel("", "caption", "muted")
        self._needs = ElidedLabel("", "caption", "muted")
        self._reason = label("", "caption", "muted")
        self._reason.setWordWrap(True)
        self.question = Banner()
        self.button = primary_button(self.tr("Merge and save"), "source-merge")
        self.button.clicked.connect(self.merge_requested)
        self.plan = QPushButton(self.tr("Plan…"))
        self.plan.setToolTip(self.tr("See what will be done with each tensor before it is done"))
        self.plan.clicked.connect(self.plan_requested)
        buttons = QHBoxLayout()
        buttons.setSpacing(8)
        buttons.addWidget(self.plan)
        buttons.addWidget(self.button, 1)
        self.body.addWidget(self.recipe)
        self.body.addWidget(self.dtype)
        self.body.addLayout(row)
        self.body.addWidget(self._options)
        self.body.addWidget(self._needs)
        self.body.addWidget(self._reason)
        self.body.addWidget(self.question)
        self.body.addLayout(buttons)
        for before, after in pairwise(
            (self.more, self.recipe, self.dtype, self.folder, choose, self.plan, self.button)
        ):
            self.setTabOrder(before, after)
        merging.changed.connect(self.refresh)
        merging.exists.connect(self._ask)
        for signal in (desk.recipe_changed, desk.project_changed, desk.lineup_changed,
                       desk.figures_changed, desk.figures_moved, desk.devices_changed):  # fmt: skip
            signal.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show folder, size and whether the merge can begin."""
        desk, merging = self._desk, self._merging
        output = merging.output
        if not self.folder.hasFocus():
            self.folder.setText(texts.home_path(output))
            self.folder.setCursorPosition(0)
        self.folder.setToolTip(str(output))
        self.dtype.setCurrentIndex(_DTYPES.index(desk.recipe.output.dtype))
        self.set_aside("")
        self._needs.setText("")
        if desk.lineup is not None:
            size = output_size(desk.lineup, desk.recipe)
            shards = f"{size.shards} shard" if size.shards == 1 else f"{size.shards} shards"
            self.set_aside(f"{size.dtype} · {texts.size(size.n_bytes)} · {shards}")
            free = free_bytes(output)
            memory = psutil.virtual_memory().available
            if free is not None:
                self._needs.setText(
                    self.tr("{needed} of {free} free disk · {memory} free memory").format(
                        needed=texts.size(size.n_bytes), free=texts.size(free),
                        memory=texts.size(memory),
                    )
                )  # fmt: skip
        self.recipe.show_recipe(desk.recipe)
        options = options_text(desk, merging)
        self._options.setText(options)
        self._options.setVisible(bool(options))
        self.plan.setEnabled(merging.plan_obstacle() is None and not merging.running)
        reason = merging.obstacle()
        self.button.setEnabled(reason is None)
        self.button.setToolTip(reason or self.tr("Write the merged model to the folder above"))
        told = reason is not None and not merging.running
        self._reason.setText(reason or "")
        self._reason.setVisible(told)
        if reason is not None or not output.exists():
            self.question.hide()

    def show_options(self) -> OutputOptions:
        """Open what seldom changes."""
        popup = OutputOptions(self._desk, self._merging, self)
        popup.open_above(self.more)
        return popup

    def choose_folder(self) -> None:
        """Ask for the folder."""
        start = str(self._merging.output.parent)
        dialog = QFileDialog(self, self.tr("Where the merged model goes"), start)
        dialog.setFileMode(QFileDialog.FileMode.AnyFile)
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setLabelText(QFileDialog.DialogLabel.Accept, self.tr("Choose"))
        dialog.selectFile(self._merging.output.name)
        dialog.setOption(QFileDialog.Option.DontConfirmOverwrite)
        if dialog.exec() and dialog.selectedFiles():
            self._merging.set_output(Path(dialog.selectedFiles()[0]))
        dialog.deleteLater()

    def _folder_typed(self) -> None:
        typed = self.folder.text().strip()
        if typed and typed != texts.home_path(self._merging.output):
            self._merging.set_output(Path(typed).expanduser().absolute())

    def _dtype_chosen(self) -> None:
        output = self._desk.recipe.output.model_copy(update={"dtype": self.dtype.currentData()})
        self._desk.edit(set_output(self._desk.recipe, output))

    def _ask(self, output: Path) -> None:
        self.question.set_message(
            "warning",
            self.tr("{name} exists already.").format(name=output.name),
            self.tr("Replacing it deletes what is there."),
            actions=[
                (self.tr("Replace it"), self._replace),
                (self.tr("Elsewhere…"), self._choose_another),
            ],
        )

    def _replace(self) -> None:
        self.question.hide()
        self._merging.start(overwrite=True)

    def _choose_another(self) -> None:
        self.question.hide()
        self.choose_folder()
