export { Classification, type ClassificationOptions, Classifier } from "./classify.ts";
