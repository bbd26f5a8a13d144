export { applyChange, configPiece, planInstall, planUninstall, type ConfigChange, type Target } from "./install.js";
export { installedEntries, type InstalledEntry } from "./inspect.js";
