"""Weight initialization for Keras 3 and TensorFlow."""
from keras_initx import fans, initializers
from keras_initx.calibration import calibrate
