"""The Qt window of Trimtab: it draws and asks; all the work is done by `trimtab`."""
